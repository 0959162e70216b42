"""A watch: its cursor, its waits, and when it reads the table. With the real store and hub."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import ChangeStatus, Create, Delete, Report
from jobledger_server.domain.job import Job, JobStatus
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import Change, FeedPage, StoreUnavailable
from jobledger_server.tuning import Tuning
from jobledger_server.watch.change_buffer import ChangeBuffer
from jobledger_server.watch.feed_reader import CHANGE_BYTES, FeedReader, filled_change_buffer
from jobledger_server.watch.feed_watch import Cursor, FeedUpdate, FeedWatch, Selection
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.tail import Tail
from tests.support.databases import both_databases
from tests.support.ledger_calls import apply, created
from tests.support.store_writer import append, creation, moved, saved, step
from tests.support.tasks import running

MAX_WAIT = 30.0
ADA = Selection(user_id="ada")


class CountingStore:
    """The real store; says how often the feed was read from it, and can be held up after that."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.reads = 0
        self.after_read: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def changes_after(self, *args: Any, **options: Any) -> FeedPage:
        self.reads += 1
        page = await self._store.changes_after(*args, **options)
        if self.after_read is not None:
            await self.after_read()
        return page


@pytest.fixture
def buffer() -> ChangeBuffer:
    return ChangeBuffer(0, Tuning(buffered_changes=5))


@pytest.fixture
def counting(store: SqlStore) -> CountingStore:
    return CountingStore(store)


@pytest.fixture
def feed(counting: CountingStore, buffer: ChangeBuffer) -> FeedReader:
    return FeedReader(counting, buffer)


@pytest.fixture
def hub(buffer: ChangeBuffer) -> WatchHub:
    return WatchHub(buffer, lambda: None, max_watches=10)


@pytest.fixture
async def ledger(store: SqlStore, hub: WatchHub) -> AsyncIterator[Ledger]:
    async with Ledger(store, hub.publish, max_waiting=100) as ledger:
        yield ledger


async def next_update(watch: FeedWatch, max_wait: float = MAX_WAIT) -> FeedUpdate:
    update = await watch.next_update(max_wait)
    assert update is not None
    return update


async def test_an_idle_watch_follows_a_feed_without_matching_changes_and_reads_no_table(
    ledger: Ledger, hub: WatchHub, feed: FeedReader, counting: CountingStore
) -> None:
    watch = FeedWatch(feed, ADA, Cursor(0), SERVICE)
    with hub.subscribe_to_feed(watch):
        assert (await next_update(watch)).synced
        for _ in range(3):
            for _ in range(7):  # more than the buffer holds
                await created(ledger, user_id="bob")
            assert await watch.next_update(0.01) is None
            assert watch.cursor == Cursor(hub.seq)
        waiting = asyncio.create_task(next_update(watch))
        await asyncio.sleep(0)
        for _ in range(7):
            await created(ledger, user_id="bob")
        job = await created(ledger)
        assert [change.job for change in (await waiting).changes] == [job]
    assert counting.reads == 0


async def test_a_change_committed_while_the_table_is_read_is_delivered(
    ledger: Ledger, hub: WatchHub, feed: FeedReader, counting: CountingStore
) -> None:
    for _ in range(7):
        await created(ledger, user_id="bob")
    late: list[Job] = []

    async def create() -> None:
        late.append(await created(ledger))

    counting.after_read = create
    watch = FeedWatch(feed, ADA, Cursor(0), SERVICE)
    with hub.subscribe_to_feed(watch):
        first = await next_update(watch)  # synced: nothing for it up to there
        second = await next_update(watch)
    assert (first.synced, list(first.changes)) == (True, [])
    assert [change.job for change in second.changes] == late
    assert counting.reads == 1


async def test_a_waiting_watch_is_woken_only_by_matching_changes(
    ledger: Ledger, hub: WatchHub, feed: FeedReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[FeedWatch] = []
    wake = FeedWatch.wake

    def noted(watch: FeedWatch) -> None:
        woken.append(watch)
        wake(watch)

    monkeypatch.setattr(FeedWatch, "wake", noted)
    watch = FeedWatch(
        feed, Selection(user_id="ada", job_types=frozenset({"render"})), Cursor(0), SERVICE
    )
    with hub.subscribe_to_feed(watch):
        await next_update(watch)
        waiting = asyncio.create_task(watch.next_update(MAX_WAIT))
        await asyncio.sleep(0)
        await created(ledger, user_id="bob")
        await apply(ledger, Create(user_id="ada", job_type="other"))
        assert woken == []
        job = await created(ledger)
        update = await waiting
    assert len(woken) == 1
    assert update is not None
    assert [change.job for change in update.changes] == [job]


async def test_a_cursor_ahead_of_the_server_gets_no_change_twice(
    store: SqlStore, ledger: Ledger, hub: WatchHub, feed: FeedReader
) -> None:
    """Another server sent it the changes; this one has not polled yet."""
    async with Ledger(store, lambda _: None, max_waiting=10) as elsewhere:
        known = [await created(elsewhere) for _ in range(3)]
    watch = FeedWatch(feed, ADA, Cursor(3), SERVICE)
    with hub.subscribe_to_feed(watch):
        assert (await next_update(watch)).synced
        assert await watch.next_update(0.01) is None
        hub.deliver(await store.changes_after(0, limit=10))
        assert await watch.next_update(0.01) is None
        job = await created(ledger)
        assert [change.job for change in (await next_update(watch)).changes] == [job]
    assert len(known) == 3


@both_databases
@pytest.mark.parametrize("filled", [False, True])
async def test_a_watch_from_any_cursor_gets_every_transition_from_buffer_and_table(
    ledger: Ledger,
    hub: WatchHub,
    feed: FeedReader,
    buffer: ChangeBuffer,
    counting: CountingStore,
    *,
    filled: bool,
) -> None:
    jobs = [await created(ledger) for _ in range(4)]
    for job in jobs:
        await apply(ledger, ChangeStatus(job_id=job.id, target=JobStatus.PROCESSING))
        await apply(ledger, Report(job_id=job.id, progress=50))
        await apply(ledger, ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED))
    assert buffer.floor == hub.seq - 5
    if filled:  # as a server does at its start, from a table that has conflated everything
        buffer = await filled_change_buffer(counting, await counting.feed_head())
        assert (buffer.floor, buffer.seq) == (0, hub.seq)
        hub = WatchHub(buffer, lambda: None, max_watches=10)
        feed = FeedReader(counting, buffer)
    for cursor in range(hub.seq):
        watch = FeedWatch(feed, ADA, Cursor(cursor), SERVICE)
        steps: list[tuple[str, int]] = []
        with hub.subscribe_to_feed(watch):
            while True:
                update = await next_update(watch)
                steps += [
                    (change.job.id, step.version)
                    for change in update.changes
                    for step in change.transitions
                ]
                if update.synced:
                    break
        starts = range(5, 17, 3)
        expected = [
            (job.id, version)
            for job, start in zip(jobs, starts, strict=True)
            for version, at in ((2, start), (4, start + 2))
            if at > cursor
        ]
        assert steps == expected


@both_databases
async def test_every_transition_of_a_deleted_job_is_delivered(store: SqlStore) -> None:
    """First from the table, where the job is deleted; then from the buffer."""
    job = await moved(store, await saved(store), JobStatus.PROCESSING)
    end = step(job, ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED))
    deletion = step(end.job, Delete(job_id=job.id, user_id="ada"))
    buffer = ChangeBuffer(2)
    for decision in (end, deletion):
        for change in await append(store, decision):
            buffer.add(change)
    reader = FeedReader(store, buffer, Tuning(feed_page=1))
    for start in (Cursor(0), Cursor(2)):
        watch = FeedWatch(reader, ADA, start, SERVICE)
        seen: list[tuple[int, list[int], bool]] = []
        while not seen or not seen[-1][-1]:
            for change in (await next_update(watch)).changes:
                versions = [each.version for each in change.transitions]
                seen.append((change.seq, versions, change.deleted))
        assert seen == [(2, [2], False), (3, [3], False), (4, [], True)][-2 if start.seq else 0 :]


async def test_a_restarted_feed_delivers_nothing_read_before(
    buffer: ChangeBuffer, feed: FeedReader
) -> None:
    before, after = creation("ada").job, creation("ada").job
    for job in (before, after):  # the same sequence numbers again
        buffer.restart(0)
        buffer.add(Change(job, 1))
        watch = FeedWatch(feed, ADA, Cursor(0), SERVICE)
        assert [change.job for change in (await next_update(watch)).changes] == [job]


@pytest.mark.parametrize(
    ("room", "expected"), [(1, {1}), (3 * (20_000 + CHANGE_BYTES), {2, 3, 4, 5})]
)
async def test_each_update_is_bounded_by_bytes(
    ledger: Ledger, hub: WatchHub, store: SqlStore, room: int, expected: set[int]
) -> None:
    """What is larger by itself is an update of its own."""
    labels = {f"k{number}": "x" * 255 for number in range(32)}
    for _ in range(10):
        await apply(ledger, Create(user_id="ada", job_type="t", labels=labels))
    buffer = await filled_change_buffer(store, await store.feed_head())
    tuning = Tuning(feed_message_bytes=room)
    watch = FeedWatch(FeedReader(store, buffer, tuning), ADA, Cursor(0), SERVICE)
    sizes: list[int] = []
    seen: list[int] = []
    while True:
        update = await next_update(watch)
        sizes.append(len(update.changes))
        seen += [change.seq for change in update.changes]
        if update.synced:
            break
    assert seen == list(range(1, 11))
    assert max(sizes) in expected


@pytest.mark.parametrize("answered", [0, 1])
async def test_a_change_buffer_starts_with_the_changes_that_were_read_in_time(
    ledger: Ledger, store: SqlStore, answered: int
) -> None:
    """The tail reads on from there, and nobody misses anything."""
    jobs = [await created(ledger) for _ in range(5)]
    counting = CountingStore(store)

    async def slow() -> None:
        if counting.reads > answered:
            raise StoreUnavailable("too slow")

    counting.after_read = slow
    head = await store.feed_head()
    buffer = await filled_change_buffer(counting, head, Tuning(fill_page=2))
    assert (buffer.floor, buffer.seq) == (0, 2 * answered)
    hub = WatchHub(buffer, lambda: None, max_watches=10)
    poll_now = asyncio.Event()
    poll_now.set()
    watch = FeedWatch(FeedReader(store, buffer), ADA, Cursor(0), SERVICE)
    seen: list[Job] = []
    async with running(Tail(store, hub, poll_now, head).run()):
        with hub.subscribe_to_feed(watch):
            while len(seen) < 5:
                seen += [change.job for change in (await next_update(watch)).changes]
    assert seen == jobs
