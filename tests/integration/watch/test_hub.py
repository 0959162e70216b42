"""The hub: the order of the commits, gaps, limits, and the reading of what others committed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest

from jobledger_server.admission.caller import SERVICE
from jobledger_server.admission.endings import FeedRestarted, ShuttingDown
from jobledger_server.domain.commands import ChangeStatus, Delete, Report
from jobledger_server.domain.errors import JobNotFound
from jobledger_server.domain.job import Job, JobId, JobStatus, Micros
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import StoreUnavailable
from jobledger_server.tuning import Tuning
from jobledger_server.watch.change_buffer import ChangeBuffer
from jobledger_server.watch.feed_reader import FeedReader
from jobledger_server.watch.feed_watch import Cursor, FeedWatch, Selection
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.job_watch import JobWatch
from jobledger_server.watch.tail import FAILOVER, RESTORE, Tail
from tests.support.databases import both_databases, execute, several_servers
from tests.support.ledger_calls import apply, created
from tests.support.store_writer import HOLE, append, creation, moved, saved, step
from tests.support.tasks import running

COMPLETED = JobStatus.COMPLETED

MAX_WAIT = 30.0


@pytest.fixture
def poll_now() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def buffer() -> ChangeBuffer:
    return ChangeBuffer(0)


@pytest.fixture
def hub(buffer: ChangeBuffer, poll_now: asyncio.Event, tuning: Tuning) -> WatchHub:
    return WatchHub(buffer, poll_now.set, max_watches=3, tuning=tuning)


@pytest.fixture
async def here(store: SqlStore, hub: WatchHub) -> AsyncIterator[Ledger]:
    """The ledger of this server: its commits go to the hub."""
    async with Ledger(store, hub.publish, max_waiting=100) as ledger:
        yield ledger


@pytest.fixture
async def elsewhere(store: SqlStore) -> AsyncIterator[Ledger]:
    """The ledger of another server on the same database: the hub gets none of its commits."""
    async with Ledger(store, lambda _: None, max_waiting=100) as ledger:
        yield ledger


@pytest.fixture
async def tail(store: SqlStore, hub: WatchHub, poll_now: asyncio.Event) -> AsyncIterator[None]:
    async with running(Tail(store, hub, poll_now, await store.feed_head()).run()):
        yield


async def started(ledger: Ledger, job: Job) -> Job:
    return (await apply(ledger, ChangeStatus(job_id=job.id, target=JobStatus.PROCESSING))).job


async def news_of(watch: JobWatch, version: int) -> list[tuple[int, list[int]]]:
    """Read until this version: (version, versions of the transitions) of each update."""
    seen = []
    while not seen or seen[-1][0] < version:
        update = await watch.next_update(MAX_WAIT)
        assert update is not None
        seen.append((update.job.version, [step.version for step in update.transitions]))
    return seen


async def test_a_commit_is_delivered_at_once_without_a_poll(
    here: Ledger, hub: WatchHub, poll_now: asyncio.Event
) -> None:
    job = await created(here)
    with hub.subscribe(job.id, SERVICE) as watch:
        watch.sent_up_to(1)
        await started(here, job)
        assert await news_of(watch, 2) == [(2, [2])]
    assert hub.seq == 2
    assert not poll_now.is_set()


async def test_a_change_behind_a_gap_is_held_back_until_the_gap_is_read(
    here: Ledger, elsewhere: Ledger, hub: WatchHub, poll_now: asyncio.Event, store: SqlStore
) -> None:
    job = await created(here)
    with hub.subscribe(job.id, SERVICE) as watch:
        watch.sent_up_to(1)
        await started(elsewhere, job)
        await apply(here, Report(job_id=job.id, progress=10))
        # Handed on now, version 3 would hide that the transition to version 2 is missing.
        assert hub.seq == 1
        assert poll_now.is_set()
        async with running(Tail(store, hub, poll_now, await store.feed_head()).run()):
            assert await news_of(watch, 3) == [(3, [2])]


async def read(store: SqlStore, hub: WatchHub, until: int | None = None) -> int:
    """Read what is missing as the tail does; return how many changes that was."""
    page = await store.changes_after(hub.seq, limit=10, until=until or hub.gap_end)
    hub.deliver(page)
    return len(page.changes)


async def test_commits_behind_a_gap_are_not_read_again(
    here: Ledger, elsewhere: Ledger, hub: WatchHub, store: SqlStore
) -> None:
    job = await created(here)
    with hub.subscribe(job.id, SERVICE) as watch:
        watch.sent_up_to(1)
        await created(elsewhere)
        await started(here, job)
        await apply(here, Report(job_id=job.id, progress=10))
        await created(elsewhere)
        await apply(here, Report(job_id=job.id, progress=20))
        assert await read(store, hub) == 1
        assert hub.seq == 4
        assert await news_of(watch, 3) == [(3, [2])]
        assert await read(store, hub) == 1
        assert await news_of(watch, 4) == [(4, [])]
    assert (hub.seq, hub.delivered) == (6, {"commit": 4, "table": 2})


async def test_two_commits_that_arrive_in_the_wrong_order_are_not_read(
    store: SqlStore, hub: WatchHub
) -> None:
    """A claim and a batch of commands commit independently."""
    first, second = await append(store, creation()), await append(store, creation())
    hub.publish(second)
    assert hub.seq == 0
    hub.publish(first)
    assert (hub.seq, hub.delivered) == (2, {"commit": 2, "table": 0})


@pytest.mark.parametrize("tuning", [Tuning(early_changes=2), Tuning(early_bytes=5000)])
async def test_commits_behind_a_gap_are_kept_within_bounds_and_the_others_are_read(
    here: Ledger,
    elsewhere: Ledger,
    hub: WatchHub,
    store: SqlStore,
) -> None:
    await created(elsewhere)
    for _ in range(4):
        await created(here)
    assert await read(store, hub) == 1
    assert hub.seq == 3
    assert await read(store, hub, until=5) == 2
    assert (hub.seq, hub.delivered) == (5, {"commit": 2, "table": 3})
    # What was kept before does not count any more.
    await created(elsewhere)
    for _ in range(4):
        await created(here)
    await read(store, hub)
    assert hub.seq == 8


async def test_a_job_that_was_deleted_behind_a_gap_is_handed_on_whole(
    store: SqlStore, hub: WatchHub
) -> None:
    job = await moved(store, await saved(store), JobStatus.PROCESSING)
    own = await append(store, step(job, Report(job_id=job.id, progress=10)))
    end = await append(store, step(own[0].job, ChangeStatus(job_id=job.id, target=COMPLETED)))
    gone = await append(store, step(end[0].job, Delete(job_id=job.id, user_id="ada")))
    with hub.subscribe(job.id, SERVICE) as watch:
        hub.publish(own)
        assert await read(store, hub) == 1
        assert hub.seq == 3
        assert await news_of(watch, 3) == [(3, [2])]
        hub.publish(gone)
        hub.publish(end)
        assert hub.seq == 5
        assert await news_of(watch, 4) == [(4, [4])]
        with pytest.raises(JobNotFound):
            await watch.next_update(0.0)


async def test_commits_of_a_feed_that_starts_over_are_not_handed_on(
    here: Ledger, elsewhere: Ledger, hub: WatchHub
) -> None:
    """Their sequence numbers belong to other changes now."""
    await created(elsewhere)
    job = await created(here)
    assert hub.newest == 2
    with hub.subscribe(job.id, SERVICE) as watch:
        hub.restart(1)
        with pytest.raises(FeedRestarted):
            await watch.next_update(0.0)
    assert (hub.seq, hub.newest, hub.gap_end) == (1, 1, None)


async def test_a_feed_that_is_behind_a_commit_of_this_server_starts_over(
    here: Ledger,
    elsewhere: Ledger,
    hub: WatchHub,
    store: SqlStore,
    poll_now: asyncio.Event,
    database: Database,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The database was restored, to where the watches were."""
    head = await store.feed_head()
    await created(elsewhere)
    job = await created(here)
    await execute(database, "DELETE FROM changes")
    with hub.subscribe(job.id, SERVICE) as watch:
        async with running(Tail(store, hub, poll_now, head).run()):
            with pytest.raises(FeedRestarted):
                await watch.next_update(MAX_WAIT)
    assert "feed_epoch_changed" in caplog.text


@both_databases
async def test_a_deletion_by_another_server_is_seen(
    here: Ledger, elsewhere: Ledger, hub: WatchHub, tail: None
) -> None:
    job = await started(here, await created(here))
    with hub.subscribe(job.id, SERVICE) as watch:
        watch.sent_up_to(2)
        await apply(here, ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED))
        await apply(elsewhere, Delete(job_id=job.id, user_id="ada"))
        assert await news_of(watch, 3) == [(3, [3])]
        with pytest.raises(JobNotFound):
            await watch.next_update(MAX_WAIT)


@both_databases
async def test_two_servers_that_race_leave_no_gap(
    here: Ledger, elsewhere: Ledger, hub: WatchHub, tail: None
) -> None:
    job = await started(here, await created(here))
    with hub.subscribe(job.id, SERVICE) as watch:
        watch.sent_up_to(2)
        for progress in range(1, 51):
            await apply(
                here if progress % 2 else elsewhere, Report(job_id=job.id, progress=progress)
            )
        await apply(elsewhere, ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED))
        seen = await news_of(watch, 53)
    versions = [version for version, _ in seen]
    assert versions == sorted(set(versions))
    assert [v for _, steps in seen for v in steps] == [53]
    assert hub.seq == 53


async def test_the_tail_continues_after_an_outage_of_the_database(
    elsewhere: Ledger, hub: WatchHub, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = asyncio.Event()

    head = await store.verify_identity()

    async def unavailable() -> None:
        away.set()
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(store, "feed_head", unavailable)
        poll_now = asyncio.Event()
        poll_now.set()
        task = asyncio.create_task(Tail(store, hub, poll_now, head).run())
        await away.wait()
    job = await created(elsewhere)
    with hub.subscribe(job.id, SERVICE) as watch:
        watch.sent_up_to(1)
        await started(elsewhere, job)
        poll_now.set()
        assert await news_of(watch, 2) == [(2, [2])]
    task.cancel()
    await asyncio.wait([task])


def unfinished(timers: list[asyncio.TimerHandle]) -> int:
    """Count the timers that somebody may wait for as long as MAX_WAIT."""
    soon = asyncio.get_running_loop().time() + MAX_WAIT / 2
    return sum(timer.when() > soon and not timer.cancelled() for timer in timers)


async def test_a_cancelled_wait_leaves_no_timer(
    hub: WatchHub, buffer: ChangeBuffer, store: SqlStore, timers: list[asyncio.TimerHandle]
) -> None:
    """Else the timer would keep the watch in memory for as long as it was going to wait."""
    of_feed = FeedWatch(FeedReader(store, buffer), Selection(), Cursor(0), SERVICE)
    with hub.subscribe_to_feed(of_feed), hub.subscribe(JobId("a"), SERVICE) as of_job:
        assert (await of_feed.next_update(MAX_WAIT)).synced
        timers.clear()
        waits = [asyncio.create_task(each.next_update(MAX_WAIT)) for each in (of_feed, of_job)]
        while unfinished(timers) < 2:
            await asyncio.sleep(0.001)
        for wait in waits:
            wait.cancel()
    assert unfinished(timers) == 0


async def test_a_draining_hub_ends_every_watch_and_takes_no_more(hub: WatchHub) -> None:
    with hub.subscribe(JobId("a"), SERVICE) as watch:
        hub.drain()
        with pytest.raises(ShuttingDown), hub.subscribe(JobId("b"), SERVICE):
            pass
        with pytest.raises(ShuttingDown):
            await watch.next_update(MAX_WAIT)
    assert hub.watches == 0


@several_servers
@pytest.mark.parametrize(
    ("identity", "cause"),
    [
        ("7 00000002 8", FAILOVER),
        ("6 00000002 8", RESTORE),
        ("7 00000001 9", RESTORE),
        ("7 00000001 8", RESTORE),
    ],
)
async def test_a_failover_is_named_where_nothing_but_the_timeline_is_another(
    hub: WatchHub,
    store: SqlStore,
    database: Database,
    poll_now: asyncio.Event,
    caplog: pytest.LogCaptureFixture,
    identity: str,
    cause: str,
) -> None:
    await execute(database, "UPDATE feed SET database_identity = '7 00000001 8'")
    head = await store.feed_head()
    update = f"UPDATE feed SET epoch = 'other', database_identity = '{identity}'"
    await execute(database, update)
    tail = Tail(store, hub, poll_now, head)
    poll_now.set()
    async with running(tail.run()), asyncio.timeout(MAX_WAIT):
        while tail.epoch != "other":
            await asyncio.sleep(0.01)
    (changed,) = caplog.records
    assert changed.message == "feed_epoch_changed"
    assert (changed.levelname, vars(changed)["cause"]) == ("WARNING", cause)


@pytest.mark.parametrize(
    "restore", ["DELETE FROM changes WHERE seq > 1", "UPDATE feed SET epoch = 'other'"]
)
async def test_a_restored_database_ends_every_watch_and_new_watches_work(
    here: Ledger,
    hub: WatchHub,
    tail: None,
    poll_now: asyncio.Event,
    caplog: pytest.LogCaptureFixture,
    restore: str,
    database: Database,
) -> None:
    job = await started(here, await created(here))
    with hub.subscribe(job.id, SERVICE) as watch:
        watch.sent_up_to(2)
        await execute(database, "UPDATE jobs SET change_seq = 1", restore)
        poll_now.set()
        with pytest.raises(FeedRestarted):
            await watch.next_update(MAX_WAIT)
    assert "feed_epoch_changed" in caplog.text
    with hub.subscribe(job.id, SERVICE) as watch:
        watch.sent_up_to(2)
        await apply(here, Report(job_id=job.id, progress=10))
        poll_now.set()
        assert (await news_of(watch, 3))[-1][0] == 3


async def test_many_watchers_are_woken_a_few_at_a_time_and_all_are_woken(
    here: Ledger, store: SqlStore, poll_now: asyncio.Event
) -> None:
    hub = WatchHub(ChangeBuffer(0), poll_now.set, max_watches=1000)
    async with Ledger(store, hub.publish, max_waiting=100) as ledger:
        job = await created(ledger)
        with ExitStack() as stack:
            subscriptions = [
                stack.enter_context(hub.subscribe(job.id, SERVICE)) for _ in range(500)
            ]
            for watch in subscriptions:
                watch.sent_up_to(1)
            served: list[int] = []

            async def serve(watch: JobWatch) -> None:
                await watch.next_update(MAX_WAIT)
                served.append(len(served))

            watchers = [asyncio.create_task(serve(watch)) for watch in subscriptions]
            await asyncio.sleep(0)
            await started(ledger, job)
            assert len(served) < 500  # the caller is answered while watches are still being woken
            await asyncio.gather(*watchers)
    assert len(served) == 500


async def test_a_hole_in_the_feed_is_logged_counted_and_ends_every_watch(
    here: Ledger,
    hub: WatchHub,
    store: SqlStore,
    poll_now: asyncio.Event,
    caplog: pytest.LogCaptureFixture,
    database: Database,
) -> None:
    """It is impossible by design; this one is made by hand."""
    job = await created(here)
    tail = Tail(store, hub, poll_now, await store.verify_identity())
    async with running(tail.run()):
        with hub.subscribe(job.id, SERVICE) as watch:
            watch.sent_up_to(1)
            await execute(database, HOLE)
            poll_now.set()
            with pytest.raises(FeedRestarted):
                await watch.next_update(MAX_WAIT)
        assert "feed_hole_found" in caplog.text
        assert (tail.holes, hub.seq) == (1, 2)
        with hub.subscribe(job.id, SERVICE) as watch:
            watch.sent_up_to(1)
            await started(here, job)
            assert await news_of(watch, 2) == [(2, [2])]


async def test_a_transition_is_delivered_if_its_job_changed_again_beyond_the_page(
    elsewhere: Ledger,
    hub: WatchHub,
    store: SqlStore,
    poll_now: asyncio.Event,
) -> None:
    job = await created(elsewhere)
    with hub.subscribe(job.id, SERVICE) as watch:
        watch.sent_up_to(1)
        await started(elsewhere, job)
        for _ in range(3):
            await created(elsewhere)
        await apply(elsewhere, Report(job_id=job.id, progress=10))
        head = await store.verify_identity()
        tail = Tail(store, hub, poll_now, head, tuning=Tuning(tail_page=2))
        async with running(tail.run()):
            poll_now.set()
            seen = await news_of(watch, 3)
    assert [version for _, steps in seen for version in steps] == [2]


async def test_a_tail_behind_the_compacted_sequence_restarts_the_feed(
    elsewhere: Ledger, hub: WatchHub, store: SqlStore, poll_now: asyncio.Event
) -> None:
    job = await created(elsewhere)
    job = await started(elsewhere, job)
    await apply(elsewhere, ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED))
    await apply(elsewhere, Delete(job_id=job.id, user_id="ada"))
    assert await store.compact_deletions(Micros(0), limit=10) == 1
    with hub.subscribe(job.id, SERVICE) as watch:
        watch.sent_up_to(1)
        async with running(Tail(store, hub, poll_now, await store.verify_identity()).run()):
            poll_now.set()
            with pytest.raises(FeedRestarted):
                await watch.next_update(MAX_WAIT)
    assert hub.seq == 4


async def test_a_feed_watcher_keeps_its_cursor_when_the_hub_restarts(
    here: Ledger, elsewhere: Ledger, hub: WatchHub, buffer: ChangeBuffer, store: SqlStore
) -> None:
    """What lies between was never sent to it."""
    for user_id in ("ada", "nobody"):
        watch = FeedWatch(FeedReader(store, buffer), Selection(user_id=user_id), Cursor(0), SERVICE)
        with hub.subscribe_to_feed(watch):
            await watch.next_update(MAX_WAIT)
            known = hub.seq
            assert await watch.next_update(0.0) is None
            for _ in range(5):
                await created(elsewhere)
            head = (await store.feed_head()).seq
            hub.restart(head)
            await created(here)
            assert hub.seq == head + 1
            with pytest.raises(FeedRestarted):
                await watch.next_update(MAX_WAIT)
            assert watch.cursor == Cursor(known)
