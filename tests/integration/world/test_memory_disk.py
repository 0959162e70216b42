"""The store in memory in a world: what its transactions wait for, and what can go wrong.

What it stores and finds is tested with the stores on databases, in `tests/integration/store`.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest

from jobledger_server.domain.commands import ChangeStatus, Report
from jobledger_server.domain.job import Job, JobId, JobStatus
from jobledger_server.domain.limits import COMMAND_SECONDS
from jobledger_server.store import Store, StoreConflict, StoreUnavailable
from jobledger_world.chance import Chance
from jobledger_world.loop import Node, WorldLoop
from jobledger_world.machine import Machine
from jobledger_world.memory import MemoryDisk
from tests.support.store_writer import append, creation, moved, read_jobs, saved, step


class Run:
    """A run of two servers with a database in memory, from a seed."""

    def __init__(self, seed: int = 1) -> None:
        chance = Chance(seed)
        self.loop = WorldLoop(chance)
        self.disk = MemoryDisk(self.loop, chance, Machine(self.loop))
        self.open = AsyncExitStack()
        self.one, self.other = Node(self.loop, "one"), Node(self.loop, "other")

    async def store(self, node: Node) -> Store:
        """Open a server's store, for as long as the run lasts."""
        return (await self.open.enter_async_context(self.disk.open(node))).store

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self.loop.run_until_complete(main)
        finally:
            self.loop.close()


@pytest.fixture
def run() -> Run:
    return Run()


async def holding(store: Store, job_id: JobId, held: asyncio.Event) -> None:
    """Lock a job, write to the feed, and keep both."""
    async with store.transaction() as transaction:
        job = (await transaction.load_jobs([job_id]))[job_id]
        await transaction.append([creation(), step(job, Report(job_id=job_id, progress=9))])
        held.set()
        await asyncio.Event().wait()


async def held_by(run: Run, node: Node) -> tuple[Job, asyncio.Task[None]]:
    """Have a server hold a job and the feed, and return both when it does."""
    store, held = await run.store(node), asyncio.Event()
    job = await moved(store, await saved(store), JobStatus.PROCESSING)
    task = node.start(holding(store, job.id, held))
    await held.wait()
    assert run.disk.held() == [f"a transaction of {node.name} with {job.id}, feed"]
    return job, task


def test_what_a_killed_server_has_locked_is_free_and_what_it_has_written_is_gone(run: Run) -> None:
    async def main() -> None:
        job, _ = await held_by(run, run.one)
        run.one.kill()
        run.disk.crash(run.one)
        assert run.disk.held() == []
        store = await run.store(run.other)
        assert await read_jobs(store, [job.id]) == {job.id: job}
        ended = await moved(store, job, JobStatus.COMPLETED)
        assert (await store.changes_after(2, limit=9)).changes[-1].job == ended
        assert (await store.feed_head()).seq == 3

    run.run(main())


def test_a_frozen_server_holds_what_it_has_locked_for_a_bounded_time(run: Run) -> None:
    async def main() -> None:
        job, holder = await held_by(run, run.one)
        store = await run.store(run.other)
        run.one.freeze()
        await asyncio.sleep(COMMAND_SECONDS - 1)
        begun = run.loop.time()
        ended = await moved(store, job, JobStatus.COMPLETED)
        assert run.loop.time() - begun == pytest.approx(COMMAND_SECONDS, abs=0.1)
        assert await read_jobs(store, [job.id]) == {job.id: ended}
        run.one.thaw()
        assert not holder.done()
        assert run.disk.held() == []

    run.run(main())


def test_a_lock_is_not_given_to_a_server_that_was_killed_while_it_waited(run: Run) -> None:
    async def main() -> None:
        store, killed = await run.store(run.one), await run.store(run.other)
        job = await saved(store)
        async with store.transaction() as transaction:
            await transaction.load_jobs([job.id])
            run.other.start(holding(killed, job.id, asyncio.Event()))
            await asyncio.sleep(1)
            run.other.kill()
            run.disk.crash(run.other)
        assert run.disk.held() == []
        await moved(store, job, JobStatus.PROCESSING)

    run.run(main())


@pytest.mark.parametrize("seed", range(5))
def test_a_commit_releases_its_locks_before_its_answer_arrives(seed: int) -> None:
    run = Run(seed)

    async def main() -> None:
        store, other = await run.store(run.one), await run.store(run.other)
        run.disk.latency = 0.5, 0.5
        run.one.start(saved(store))
        while not (await other.feed_head()).seq:
            pass
        run.one.freeze()
        begun = run.loop.time()
        await saved(other)
        assert run.loop.time() < begun + COMMAND_SECONDS

    run.run(main())


def test_a_terminated_transaction_cannot_go_on(run: Run) -> None:
    async def main() -> None:
        store = await run.store(run.one)
        job = await saved(store)
        with pytest.raises(StoreUnavailable):
            async with store.transaction() as transaction:
                await transaction.load_jobs([job.id])
                await asyncio.sleep(COMMAND_SECONDS + 1)
                await transaction.append([creation()])
        with pytest.raises(StoreUnavailable):
            async with store.transaction() as transaction:
                await transaction.append([creation()])
                await asyncio.sleep(COMMAND_SECONDS + 1)
        assert (await store.feed_head()).seq == 1

    run.run(main())


def test_a_wait_for_a_lock_that_is_used_ends_with_an_error(run: Run) -> None:
    async def main() -> None:
        store = await run.store(run.one)
        job = await saved(store)

        async def waiting() -> None:
            async with store.transaction() as transaction:
                await transaction.load_jobs([job.id])

        async with store.transaction() as transaction:
            await transaction.load_jobs([job.id])
            wait = asyncio.create_task(waiting())
            for _ in range(2 * COMMAND_SECONDS):
                await transaction.find_created([("ada", "r")])
                await asyncio.sleep(1)
        with pytest.raises(StoreUnavailable) as refused:
            await wait
        assert refused.value.kind == "timeout"
        assert run.disk.counts["busy"] == 1
        assert run.disk.held() == []

    run.run(main())


def test_claims_skip_what_another_server_has_locked(run: Run) -> None:
    async def main() -> None:
        store, other = await run.store(run.one), await run.store(run.other)
        jobs = [await saved(store) for _ in range(3)]
        async with store.transaction() as transaction, other.transaction() as rival:
            await transaction.load_jobs([jobs[0].id])
            claimed = await rival.load_claimed([job.id for job in jobs])
            assert list(claimed) == [jobs[1].id, jobs[2].id]

    run.run(main())


def test_sequence_numbers_follow_the_commits_of_all_servers(run: Run) -> None:
    async def main() -> None:
        stores = [await run.store(node) for node in (run.one, run.other)]
        seqs: list[int] = []

        async def write(store: Store) -> None:
            for _ in range(10):
                seqs.extend(change.seq for change in await append(store, creation(), creation()))

        async def read(store: Store) -> None:
            seen = 0
            while seen < 40:
                page = await store.changes_after(seen, limit=9)
                assert [c.seq for c in page.changes] == list(range(seen + 1, page.through + 1))
                seen = page.through

        await asyncio.gather(*map(write, stores), *map(read, stores))
        assert sorted(seqs) == list(range(1, 41))

    run.run(main())


def test_a_commit_is_lost_or_rejected(run: Run) -> None:
    async def main() -> None:
        store, disk = await run.store(run.one), run.disk
        for fault in ("loses", "rejects"):
            setattr(disk, fault, 1.0)
            for last in (False, True):
                with pytest.raises(StoreUnavailable) as refused:
                    async with store.transaction() as transaction:
                        await transaction.append([creation()], last=last)
                assert not refused.value.stale
            setattr(disk, fault, 0.0)
            assert (await store.feed_head()).seq == 2
        assert (disk.counts["lost"], disk.counts["rejected"]) == (2, 2)
        assert disk.held() == []

    run.run(main())


def test_a_server_that_is_cut_off_reaches_nothing_and_others_do(run: Run) -> None:
    async def main() -> None:
        store, other = await run.store(run.one), await run.store(run.other)
        run.disk.cut[run.one] = None
        for call in (store.feed_head, lambda: saved(store), store.config):
            with pytest.raises(StoreUnavailable):
                await call()
        await saved(other)
        del run.disk.cut[run.one]
        assert (await store.feed_head()).seq == 1

    run.run(main())


def test_a_database_that_stalls_answers_later_or_too_late(run: Run) -> None:
    async def main() -> None:
        store = await run.store(run.one)
        run.disk.stall(2.0)
        await store.feed_head()
        assert run.loop.time() == pytest.approx(2.0, abs=0.1)
        run.disk.stall(COMMAND_SECONDS + 2.0)
        with pytest.raises(StoreUnavailable) as refused:
            await store.feed_head()
        assert refused.value.kind == "timeout"
        assert run.loop.time() == pytest.approx(2.0 + COMMAND_SECONDS, abs=0.1)

    run.run(main())


def test_statements_fail_and_nothing_of_their_transactions_stays(run: Run) -> None:
    async def main() -> None:
        store, disk = await run.store(run.one), run.disk
        disk.fails = 0.3
        done = 0
        for _ in range(100):
            try:
                await saved(store)
                done += 1
            except StoreUnavailable:
                pass
        disk.fails = 0.0
        assert 0 < done < 100
        assert (await store.feed_head()).seq == done
        assert disk.held() == []

    run.run(main())


def test_a_decision_about_a_job_that_is_not_locked_is_refused(run: Run) -> None:
    """It may be about a version that another one has replaced."""

    async def main() -> None:
        store = await run.store(run.one)
        job = await saved(store)
        start = step(job, ChangeStatus(job_id=job.id, target=JobStatus.PROCESSING))
        with pytest.raises(StoreConflict):
            async with store.transaction() as transaction:
                await transaction.append([start])

    run.run(main())
