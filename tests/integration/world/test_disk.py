"""The disk of a world: several servers' stores on one SQLite file, in simulated time."""

import asyncio
from pathlib import Path

import pytest

from jobledger_server.database.file_lock import DatabaseInUse
from jobledger_server.domain.job import JobId
from jobledger_server.sql.sqlite.sqlite_engines import BUSY_SECONDS
from jobledger_server.store import FeedHead, JobQuery, StoreUnavailable
from tests.integration.world.disk_run import DiskRun, Server
from tests.support.store_writer import creation

SERVERS, JOBS = 3, 5


@pytest.fixture
def run(tmp_path: Path) -> DiskRun:
    return DiskRun(tmp_path)


async def creating(server: Server) -> None:
    for _ in range(JOBS):
        await server.create()


async def newest(server: Server) -> int:
    return (await server.store.feed_head()).seq


async def exists(server: Server, job_id: JobId) -> bool:
    return job_id in await server.store.read_jobs([job_id], full=False)


async def several(run: DiskRun) -> FeedHead:
    """Have several servers write at once; return the feed's head."""
    await asyncio.gather(*(run.serve(creating, f"server-{n}")[1] for n in range(SERVERS)))
    assert run.disk.held() == []
    return await run.serve(lambda server: server.store.feed_head())[1]


def test_several_servers_write_to_one_file(run: DiskRun) -> None:
    assert run.run(several(run)).seq == SERVERS * JOBS
    assert run.disk.counts["commits"] == SERVERS * JOBS
    assert run.disk.counts["busy"] == 0


def test_a_seed_repeats_a_run(tmp_path: Path) -> None:
    seen = []
    for seed in (1, 1, 2):
        run = DiskRun(tmp_path, seed)
        head = run.run(several(run))
        seen.append((run.loop.hash, head.epoch))
    assert seen[0] == seen[1]
    assert not set(seen[1]) & set(seen[2])


def test_a_read_that_fails_is_reported_and_the_next_one_succeeds(run: DiskRun) -> None:
    async def use(server: Server) -> None:
        job = (await server.create()).job
        run.disk.fails = 1.0
        with pytest.raises(StoreUnavailable) as refused:
            await exists(server, job.id)
        assert refused.value.kind == "io"
        run.disk.fails = 0.0
        assert await exists(server, job.id)

    run.run(run.serve(use)[1])
    assert run.disk.counts["failed"] == 1


@pytest.mark.parametrize("seed", range(4))
def test_a_write_that_fails_leaves_no_trace(tmp_path: Path, seed: int) -> None:
    """Whether SQLite rolled back by itself, or the server did."""
    run = DiskRun(tmp_path, seed)

    async def use(server: Server) -> None:
        run.disk.fails = 0.2
        refused = []
        for _ in range(30):
            try:
                await server.create()
            except StoreUnavailable as error:
                refused.append(error.kind)
        run.disk.fails = 0.0
        assert {"io", "disk_full"} >= set(refused) != set()
        assert await newest(server) == 30 - len(refused)
        assert run.disk.held() == []

    run.run(run.serve(use)[1])


def test_a_rejected_commit_changes_nothing_and_can_be_repeated(run: DiskRun) -> None:
    async def use(server: Server) -> None:
        run.disk.rejects = 1.0
        with pytest.raises(StoreUnavailable) as refused:
            await server.create("r")
        assert refused.value.kind in ("io", "disk_full")
        assert not refused.value.stale
        run.disk.rejects = 0.0
        assert await newest(server) == 0
        assert (await server.create("r")).changed

    run.run(run.serve(use)[1])
    assert run.disk.counts["rejected"] == 1


def test_a_commit_whose_answer_is_lost_was_made(run: DiskRun) -> None:
    async def use(server: Server) -> None:
        run.disk.loses = 1.0
        with pytest.raises(StoreUnavailable) as refused:
            await server.create("r")
        assert refused.value.kind == "io"
        assert not refused.value.stale
        run.disk.loses = 0.0
        assert not (await server.create("r")).changed
        assert await newest(server) == 1

    run.run(run.serve(use)[1])
    assert run.disk.counts["lost"] == 1


def test_a_server_that_is_cut_off_does_not_keep_others_from_the_file(run: DiskRun) -> None:
    async def cut_off(server: Server) -> None:
        await server.create()
        run.disk.cut[server.node] = None
        for attempt in (server.create, server.store.feed_head):
            with pytest.raises(StoreUnavailable):
                await attempt()
        assert await run.serve(newest, "other")[1] == 1
        del run.disk.cut[server.node]
        await server.create()
        assert await newest(server) == 2

    run.run(run.serve(cut_off)[1])
    assert run.disk.counts["cut"] >= 2


def test_a_server_without_the_file_does_not_open_it(run: DiskRun) -> None:
    async def main() -> None:
        node, opening = run.serve(newest)
        run.disk.cut[node] = None
        with pytest.raises(StoreUnavailable) as refused:
            await opening
        assert refused.value.kind == "connection"

    run.run(main())


@pytest.mark.parametrize("seed", range(4))
def test_a_stalled_disk_answers_late(tmp_path: Path, seed: int) -> None:
    run = DiskRun(tmp_path, seed)

    async def use(server: Server) -> None:
        run.disk.stall(60)
        await server.create()
        assert run.loop.time() >= 60

    run.run(run.serve(use)[1])


def test_a_server_that_freezes_in_a_transaction_keeps_others_from_writing(run: DiskRun) -> None:
    """They can read, and it goes on when it is thawed."""
    begun = asyncio.Event()

    async def write(server: Server) -> None:
        async with server.store.transaction() as transaction:
            begun.set()
            await transaction.append([creation()])

    async def meanwhile(server: Server) -> None:
        began = run.loop.time()
        with pytest.raises(StoreUnavailable) as refused:
            await server.create()
        assert refused.value.kind == "timeout"
        assert run.loop.time() - began >= BUSY_SECONDS
        assert not await exists(server, JobId("j"))

    async def main() -> None:
        node, writing = run.serve(write, "frozen")
        await begun.wait()
        node.freeze()
        assert run.disk.held() == ["frozen writes"]
        await run.serve(meanwhile)[1]
        node.thaw()
        await writing
        assert await run.serve(newest)[1] == 1

    run.run(main())
    assert run.disk.counts["busy"] == 1


def test_a_transaction_waits_for_the_lock_of_another_server(run: DiskRun) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def write(server: Server) -> None:
        async with server.store.transaction() as transaction:
            begun.set()
            await transaction.append([creation()])
            await asyncio.sleep(BUSY_SECONDS / 2)
        ended.set()

    async def wait(server: Server) -> None:
        await begun.wait()
        await server.create()
        assert ended.is_set()

    async def main() -> None:
        await asyncio.gather(run.serve(write, "a")[1], run.serve(wait, "b")[1])

    run.run(main())
    assert run.disk.counts["busy"] == 0


def test_what_a_killed_server_did_not_commit_is_undone(run: DiskRun) -> None:
    begun = asyncio.Event()

    async def write(server: Server) -> None:
        async with server.store.transaction() as transaction:
            await transaction.append([creation()])
            begun.set()
            await asyncio.sleep(3600)

    async def main() -> None:
        node, _ = run.serve(write, "killed")
        await begun.wait()
        run.kill(node)
        assert run.disk.held() == []
        await run.serve(creating)[1]
        assert await run.serve(newest)[1] == JOBS

    run.run(main())
    assert run.disk.counts["busy"] == 0


def test_a_commit_that_a_killed_server_did_not_hear_of_was_made(run: DiskRun) -> None:
    run.disk.latency = (1.0, 1.0)

    async def main() -> None:
        node, writing = run.serve(lambda server: server.create())
        while not run.disk.counts["commits"]:
            await asyncio.sleep(0.1)
        run.kill(node)
        assert await run.serve(newest)[1] == 1
        assert not writing.done()

    run.run(main())


def test_a_list_whose_caller_is_gone_is_interrupted(run: DiskRun) -> None:
    async def use(server: Server) -> None:
        await server.create()
        run.disk.latency = (1.0, 1.0)
        query = JobQuery(user_id="ada")
        # Until one is interrupted: a statement may have run by then, and only its answer lacks.
        while not run.disk.counts["interrupted"]:
            listing = asyncio.create_task(server.store.list_jobs(query, before=None, limit=10))
            await asyncio.sleep(1.5)  # its transaction has begun
            listing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await listing
        assert len((await server.store.list_jobs(query, before=None, limit=10)).jobs) == 1
        assert run.disk.held() == []

    run.run(run.serve(use)[1])
    assert run.disk.counts["interrupted"] == 1


def test_an_exclusive_file_is_for_one_server_until_it_is_gone(tmp_path: Path) -> None:
    run = DiskRun(tmp_path, exclusive=True)
    forever = asyncio.Event()

    async def main() -> None:
        node, _ = run.serve(lambda _: forever.wait(), "first")
        await asyncio.sleep(1)
        with pytest.raises(DatabaseInUse, match="first"):
            await run.serve(newest, "second")[1]
        run.kill(node)
        assert await run.serve(newest, "second")[1] == 0
        assert await run.serve(newest, "third")[1] == 0

    run.run(main())


def test_an_exclusive_file_has_a_record_of_how_far_the_feed_came(tmp_path: Path) -> None:
    run = DiskRun(tmp_path, exclusive=True)

    async def first(server: Server) -> FeedHead:
        await creating(server)
        head = await server.store.feed_head()
        lock = server.opened.lock
        assert lock is not None
        assert not lock.continues(head), "nothing was recorded of a new file"
        lock.record(head)
        return head

    async def next_one(server: Server) -> None:
        head = await server.store.feed_head()
        lock = server.opened.lock
        assert lock is not None
        assert lock.continues(head)
        assert not lock.continues(FeedHead(head.epoch, head.seq - 1))
        assert not lock.continues(FeedHead("other", head.seq))

    async def main() -> None:
        await run.serve(first)[1]
        await run.serve(next_one)[1]
        await run.serve(next_one)[1]

    run.run(main())
