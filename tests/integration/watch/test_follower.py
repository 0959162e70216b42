"""A follower: its place, its sleep, and when it reads the table. Over the real store and hub."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jobledger_server.domain.commands import Create, CreateAll, Delete, Report, Transit
from jobledger_server.domain.job import OVERHEAD_BYTES, Job, JobStatus, Payload
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import FeedPage, StoreUnavailable
from jobledger_server.watch import change_buffer as window_module
from jobledger_server.watch import feed_reader as feed_module
from jobledger_server.watch.change_buffer import Window
from jobledger_server.watch.feed_reader import Feed, ForeignPlace, filled_window
from jobledger_server.watch.feed_watch import Follower, Place, Selection, Told
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.job_watch import Draining
from jobledger_server.watch.tail import Tail
from tests.support.store_writer import append, creation, finished, moved, saved, step

PATIENCE = 30.0
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
def window() -> Window:
    return Window(0, max_changes=5)


@pytest.fixture
def counting(store: SqlStore) -> CountingStore:
    return CountingStore(store)


@pytest.fixture
def feed(counting: CountingStore, window: Window) -> Feed:
    return Feed(counting, window)


@pytest.fixture
def hub(window: Window) -> WatchHub:
    return WatchHub(window, lambda: None, max_watches=10)


@pytest.fixture
async def ledger(store: SqlStore, hub: WatchHub) -> AsyncIterator[Ledger]:
    async with Ledger(store, hub.publish, max_waiting=100) as ledger:
        yield ledger


async def created(ledger: Ledger, user_id: str = "ada") -> Job:
    return (await ledger.apply(Create(user_id=user_id, job_type="t"))).job


async def told(follower: Follower, patience: float = PATIENCE) -> Told:
    news = await follower.news(patience)
    assert news is not None
    return news


async def test_one_that_sleeps_keeps_up_with_a_feed_that_has_nothing_for_it(
    ledger: Ledger, hub: WatchHub, feed: Feed, counting: CountingStore
) -> None:
    follower = Follower(feed, ADA, Place(0))
    with hub.follow(follower):
        assert (await told(follower)).synced
        for _ in range(3):
            for _ in range(7):  # more than the window holds
                await created(ledger, "bob")
            assert await follower.news(0.01) is None
            assert follower.place == Place(hub.seq)
        waiting = asyncio.create_task(told(follower))
        await asyncio.sleep(0)
        for _ in range(7):
            await created(ledger, "bob")
        job = await created(ledger)
        assert [change.job for change in (await waiting).changes] == [job]
    assert counting.reads == 0


async def test_what_comes_while_the_table_is_read_is_not_slept_over(
    ledger: Ledger, hub: WatchHub, feed: Feed, counting: CountingStore
) -> None:
    for _ in range(7):
        await created(ledger, "bob")
    late: list[Job] = []

    async def create() -> None:
        late.append(await created(ledger))

    counting.after_read = create
    follower = Follower(feed, ADA, Place(0))
    with hub.follow(follower):
        first = await told(follower)  # synced: nothing for it up to there
        second = await told(follower)
    assert (first.synced, list(first.changes)) == (True, [])
    assert [change.job for change in second.changes] == late
    assert counting.reads == 1


async def test_a_sleeper_is_woken_for_what_it_follows_and_nothing_else(
    ledger: Ledger, hub: WatchHub, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[Follower] = []
    wake = Follower.wake

    def noted(follower: Follower) -> None:
        woken.append(follower)
        wake(follower)

    monkeypatch.setattr(Follower, "wake", noted)
    follower = Follower(feed, Selection(user_id="ada", job_types=frozenset({"t"})), Place(0))
    with hub.follow(follower):
        await told(follower)
        waiting = asyncio.create_task(follower.news(PATIENCE))
        await asyncio.sleep(0)
        await created(ledger, "bob")
        await ledger.apply(Create(user_id="ada", job_type="other"))
        assert woken == []
        job = await created(ledger)
        news = await waiting
    assert len(woken) == 1
    assert news is not None
    assert [change.job for change in news.changes] == [job]


async def test_one_ahead_of_its_server_is_not_told_again_what_it_knows(
    store: SqlStore, ledger: Ledger, hub: WatchHub, feed: Feed
) -> None:
    """Another server told it; this one has yet to look."""
    async with Ledger(store, lambda _: None, max_waiting=10) as elsewhere:
        known = [await created(elsewhere) for _ in range(3)]
    follower = Follower(feed, ADA, Place(3))
    with hub.follow(follower):
        assert (await told(follower)).synced
        assert await follower.news(0.01) is None
        hub.deliver((await store.changes_after(0, limit=10)).changes)
        assert await follower.news(0.01) is None
        job = await created(ledger)
        assert [change.job for change in (await told(follower)).changes] == [job]
    assert len(known) == 3


@pytest.mark.parametrize("filled", [False, True])
async def test_from_any_place_everything_is_told_by_window_and_table(
    ledger: Ledger,
    hub: WatchHub,
    feed: Feed,
    window: Window,
    counting: CountingStore,
    *,
    filled: bool,
) -> None:
    jobs = [await created(ledger) for _ in range(4)]
    for job in jobs:
        await ledger.apply(Transit(job_id=job.id, target=JobStatus.PROCESSING))
        await ledger.apply(Report(job_id=job.id, progress=50))
        await ledger.apply(Transit(job_id=job.id, target=JobStatus.COMPLETED))
    assert window.floor == hub.seq - 5
    if filled:  # as a server does at its start, from a table that has conflated everything
        window = await filled_window(counting, await counting.feed_head())
        assert (window.floor, window.seq) == (0, hub.seq)
        hub = WatchHub(window, lambda: None, max_watches=10)
        feed = Feed(counting, window)
    for place in range(hub.seq):
        follower = Follower(feed, ADA, Place(place))
        steps: list[tuple[str, int]] = []
        with hub.follow(follower):
            while True:
                news = await told(follower)
                steps += [
                    (change.job.id, step.version)
                    for change in news.changes
                    for step in change.transitions
                ]
                if news.synced:
                    break
        starts = range(5, 17, 3)
        expected = [
            (job.id, version)
            for job, start in zip(jobs, starts, strict=True)
            for version, at in ((2, start), (4, start + 2))
            if at > place
        ]
        assert steps == expected


async def test_of_a_deleted_job_whose_start_was_passed_over_only_the_deletion_is_told(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it read the table, which has forgotten the job; then the window, which has not."""
    monkeypatch.setattr(feed_module, "PAGE", 1)
    job = await moved(store, await saved(store), JobStatus.PROCESSING)
    other = await saved(store)
    report = step(job, Report(job_id=job.id, progress=50))
    end = step(report.job, Transit(job_id=job.id, target=JobStatus.COMPLETED))
    deletion = step(end.job, Delete(job_id=job.id, user_id="ada"))
    window = Window(3)
    for decision in (report, creation(), end, deletion):
        for change in await append(store, decision):
            window.add(change)
    follower = Follower(Feed(store, window), ADA, Place(0))
    first, second, third = [await told(follower) for _ in range(3)]
    assert [change.job for change in first.changes] == [other]
    assert first.place_of(first.changes[0]) == first.place == Place(3, as_of=7)
    assert [change.seq for change in second.changes] == [5]
    assert second.place_of(second.changes[0]) == second.place == Place(5, as_of=7)
    assert [(change.seq, change.deleted) for change in third.changes] == [(7, True)]
    assert third.place == Place(7)
    for place, seq in ((first.place, 5), (second.place, 7)):  # as by a token, on any server
        elsewhere = Follower(Feed(store, window), ADA, place)
        assert [change.seq for change in (await told(elsewhere)).changes] == [seq]


async def test_a_server_that_has_not_seen_such_a_deletion_yet_asks_the_table(
    counting: CountingStore, store: SqlStore
) -> None:
    job = await finished(store)
    gone = step(job, Delete(job_id=job.id, user_id="ada"))
    window = Window(1)
    for change in (await store.changes_after(1, limit=10)).changes:
        window.add(change)
    await append(store, gone)
    follower = Follower(Feed(counting, window), ADA, Place(1, as_of=4))
    assert [(change.seq, change.deleted) for change in (await told(follower)).changes] == [
        (4, True)
    ]
    assert await follower.news(0.0) is None
    assert counting.reads == 1
    with pytest.raises(ForeignPlace):
        await told(Follower(Feed(store, window), ADA, Place(1, as_of=5)))


@pytest.mark.parametrize(("page", "page_bytes"), [(100, 10**6), (1, 10**6), (100, 1)])
async def test_every_place_in_a_page_of_the_table_says_as_of_when_it_was_read(
    counting: CountingStore,
    store: SqlStore,
    monkeypatch: pytest.MonkeyPatch,
    page: int,
    page_bytes: int,
) -> None:
    """A server that was away takes pages, and those who follow it can go on elsewhere."""
    monkeypatch.setattr(feed_module, "PAGE", page)
    monkeypatch.setattr(feed_module, "PAGE_BYTES", page_bytes)
    for user_id in ("ada", "ada", "bob", "ada", "bob", "ada"):
        await saved(store, user_id, parameters=Payload(b"x"))
    window = Window(0)
    hub = WatchHub(window, lambda: None, max_watches=10)
    feed = Feed(counting, window)
    asleep = {user: Follower(feed, Selection(user_id=user), Place(0)) for user in ("ada", "bob")}
    with hub.follow(asleep["ada"]), hub.follow(asleep["bob"]):
        for follower in asleep.values():
            assert (await told(follower)).synced
        hub.deliver((await store.changes_after(0, limit=2)).changes)
        assert asleep["ada"].place == Place(0, as_of=6)
        assert asleep["bob"].place == Place(2, as_of=6)
        hub.deliver((await store.changes_after(2, limit=3)).changes)
        assert asleep["bob"].place == Place(2, as_of=6)
    for user_id, last in (("ada", 4), ("bob", 5), ("eve", 5)):
        follower = Follower(feed, Selection(user_id=user_id), Place(0))
        places = []
        while not (news := await told(follower)).synced:
            places += [news.place_of(change) for change in news.changes] + [news.place]
        places += [news.place_of(change) for change in news.changes] + [news.place]
        assert places[-1] == Place(5, as_of=6)
        assert {place.as_of for place in places} == {6}
        assert max(place.seq for place in places[:-1] or places) in (last, 5)
    assert counting.reads == 0


async def test_a_draining_server_ends_it_at_its_place(hub: WatchHub, feed: Feed) -> None:
    follower = Follower(feed, ADA, Place(0))
    with hub.follow(follower):
        await told(follower)
        waiting = asyncio.create_task(follower.news(PATIENCE))
        await asyncio.sleep(0)
        hub.drain()
        with pytest.raises(Draining):
            await waiting
        with pytest.raises(Draining), hub.follow(follower):
            pass
    assert follower.place == Place(0)


async def test_what_a_reader_may_stall_over_is_cut_by_its_bytes(
    ledger: Ledger, hub: WatchHub, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = Payload(b"x" * 40_000)
    monkeypatch.setattr(feed_module, "PAGE_BYTES", 3 * (40_000 + OVERHEAD_BYTES + 100))
    for _ in range(10):
        await ledger.apply(Create(user_id="ada", job_type="t", parameters=blob))
    empty = Window(hub.seq)
    for window, place in (
        (empty, Place(0)),  # from the table
        (empty, Place(0, hub.seq)),  # as a listing
        (await filled_window(store, await store.feed_head()), Place(0)),
    ):
        follower = Follower(Feed(store, window), ADA, place)
        sizes: list[int] = []
        seen: list[int] = []
        while True:
            news = await told(follower)
            sizes.append(len(news.changes))
            seen += [change.seq for change in news.changes]
            if news.synced:
                break
        assert seen == list(range(1, 11))
        assert max(sizes) == 3


async def test_a_change_buffer_is_filled_with_no_more_than_it_holds(
    ledger: Ledger, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many large jobs there are: the newest count."""
    monkeypatch.setattr(window_module, "MAX_BYTES", 1_000_000)
    for _ in range(20):
        blobs = (Payload(bytes(100_000)) for _ in range(10))
        creations = (Create(user_id="ada", job_type="t", parameters=blob) for blob in blobs)
        await ledger.create_all(CreateAll(tuple(creations)))
    tracemalloc.start()
    try:
        window = await filled_window(store, await store.feed_head())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (window.floor, window.seq) == (191, 200)
    assert most < 6_000_000  # of 20 MB


@pytest.mark.parametrize("answered", [0, 1])
async def test_a_change_buffer_begins_with_what_the_database_answers_in_time(
    ledger: Ledger, store: SqlStore, monkeypatch: pytest.MonkeyPatch, answered: int
) -> None:
    """The tail reads on from there, and nobody misses anything."""
    monkeypatch.setattr(feed_module, "FILL_PAGE", 2)
    jobs = [await created(ledger) for _ in range(5)]
    counting = CountingStore(store)

    async def slow() -> None:
        if counting.reads > answered:
            raise StoreUnavailable("too slow")

    counting.after_read = slow
    head = await store.feed_head()
    window = await filled_window(counting, head)
    assert (window.floor, window.seq) == (0, 2 * answered)
    hub = WatchHub(window, lambda: None, max_watches=10)
    look = asyncio.Event()
    look.set()
    tail = asyncio.create_task(Tail(store, hub, look, head).run())
    follower = Follower(Feed(store, window), ADA, Place(0))
    seen: list[Job] = []
    with hub.follow(follower):
        while len(seen) < 5:
            seen += [change.job for change in (await told(follower)).changes]
    assert seen == jobs
    tail.cancel()
    await asyncio.wait([tail])
