"""The hub: the order of the commits, gaps, limits, and the reading of what others committed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest
from sqlalchemy import text

from jobledger_server.admission.admission import CALLER, Caller
from jobledger_server.domain.commands import Create, Delete, Report, Transit
from jobledger_server.domain.errors import JobNotFound, LimitExceeded
from jobledger_server.domain.job import Job, JobId, JobStatus, Micros
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.dialect import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import StoreUnavailable
from jobledger_server.watch import tail as tail_module
from jobledger_server.watch.change_buffer import Window
from jobledger_server.watch.feed_reader import Feed
from jobledger_server.watch.feed_watch import Follower, Place, Selection
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.job_watch import Draining, Subscription
from jobledger_server.watch.tail import Tail
from tests.support.store_writer import append, creation, moved, saved, step

PATIENCE = 30.0


@pytest.fixture
def look() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def window() -> Window:
    return Window(0)


@pytest.fixture
def hub(window: Window, look: asyncio.Event) -> WatchHub:
    return WatchHub(window, look.set, max_watches=3)


@pytest.fixture
async def here(store: SqlStore, hub: WatchHub) -> AsyncIterator[Ledger]:
    """The ledger of this server: its commits go to the hub."""
    async with Ledger(store, hub.publish, max_waiting=100) as ledger:
        yield ledger


@pytest.fixture
async def elsewhere(store: SqlStore) -> AsyncIterator[Ledger]:
    """The ledger of another server on the same database: the hub hears nothing of it."""
    async with Ledger(store, lambda _: None, max_waiting=100) as ledger:
        yield ledger


@pytest.fixture
async def tail(store: SqlStore, hub: WatchHub, look: asyncio.Event) -> AsyncIterator[None]:
    task = asyncio.create_task(Tail(store, hub, look, await store.feed_head()).run())
    yield
    task.cancel()
    await asyncio.wait([task])


async def created(ledger: Ledger) -> Job:
    return (await ledger.apply(Create(user_id="ada", job_type="t"))).job


async def started(ledger: Ledger, job: Job) -> Job:
    return (await ledger.apply(Transit(job_id=job.id, target=JobStatus.PROCESSING))).job


async def news_of(subscription: Subscription, version: int) -> list[tuple[int, list[int]]]:
    """Read until this version: (version, versions of the transitions) of each news."""
    seen = []
    while not seen or seen[-1][0] < version:
        news = await subscription.news(PATIENCE)
        assert news is not None
        seen.append((news.job.version, [step.version for step in news.transitions]))
    return seen


async def test_a_commit_is_handed_on_at_once_without_a_look(
    here: Ledger, hub: WatchHub, look: asyncio.Event
) -> None:
    job = await created(here)
    with hub.subscribe(job.id) as subscription:
        subscription.begin(1)
        await started(here, job)
        assert await news_of(subscription, 2) == [(2, [2])]
    assert hub.seq == 2
    assert not look.is_set()


async def test_a_change_behind_a_gap_is_held_back_until_the_gap_is_read(
    here: Ledger, elsewhere: Ledger, hub: WatchHub, look: asyncio.Event, store: SqlStore
) -> None:
    job = await created(here)
    with hub.subscribe(job.id) as subscription:
        subscription.begin(1)
        await started(elsewhere, job)
        await here.apply(Report(job_id=job.id, progress=10))
        # Handed on now, version 3 would hide that the transition to version 2 is missing.
        assert hub.seq == 1
        assert look.is_set()
        task = asyncio.create_task(Tail(store, hub, look, await store.feed_head()).run())
        assert await news_of(subscription, 3) == [(3, [2])]
        task.cancel()
        await asyncio.wait([task])


async def test_a_change_behind_a_page_that_passed_over_its_job_is_held_back(
    store: SqlStore, hub: WatchHub, look: asyncio.Event
) -> None:
    """A busy server can read a page of the table before it learns of its own commits."""
    job = await moved(store, await saved(store), JobStatus.PROCESSING)
    await saved(store)
    report = step(job, Report(job_id=job.id, progress=10))
    end = step(report.job, Transit(job_id=job.id, target=JobStatus.COMPLETED))
    own = await append(store, report)
    for decision in (end, step(end.job, Delete(job_id=job.id, user_id="ada"))):
        await append(store, decision)
    with hub.subscribe(job.id) as subscription:
        hub.deliver((await store.changes_after(0, limit=1)).changes)
        assert hub.seq == own[0].seq - 1
        hub.publish(own)
        assert await subscription.news(0.0) is None
        assert look.is_set()
        hub.deliver((await store.changes_after(hub.seq, limit=10)).changes)
        with pytest.raises(JobNotFound):
            await subscription.news(0.0)
    hub.publish(await append(store, creation()))
    assert hub.seq == 7


async def test_what_another_server_commits_is_seen_without_any_hint(
    elsewhere: Ledger, hub: WatchHub, tail: None
) -> None:
    job = await created(elsewhere)
    with hub.subscribe(job.id) as subscription:
        subscription.begin(1)
        job = await started(elsewhere, job)
        await elsewhere.apply(Transit(job_id=job.id, target=JobStatus.COMPLETED))
        seen = await news_of(subscription, 3)
    assert [version for _, steps in seen for version in steps] == [2, 3]


async def test_a_deletion_by_another_server_is_seen(
    here: Ledger, elsewhere: Ledger, hub: WatchHub, tail: None
) -> None:
    job = await started(here, await created(here))
    with hub.subscribe(job.id) as subscription:
        subscription.begin(2)
        await here.apply(Transit(job_id=job.id, target=JobStatus.COMPLETED))
        await elsewhere.apply(Delete(job_id=job.id, user_id="ada"))
        assert await news_of(subscription, 3) == [(3, [3])]
        with pytest.raises(JobNotFound):
            await subscription.news(PATIENCE)


async def test_two_servers_that_race_leave_no_gap(
    here: Ledger, elsewhere: Ledger, hub: WatchHub, tail: None
) -> None:
    job = await started(here, await created(here))
    with hub.subscribe(job.id) as subscription:
        subscription.begin(2)
        for progress in range(1, 51):
            await (here if progress % 2 else elsewhere).apply(
                Report(job_id=job.id, progress=progress)
            )
        await elsewhere.apply(Transit(job_id=job.id, target=JobStatus.COMPLETED))
        seen = await news_of(subscription, 53)
    versions = [version for version, _ in seen]
    assert versions == sorted(set(versions))
    assert [v for _, steps in seen for v in steps] == [53]
    assert hub.seq == 53


async def test_the_tail_outlives_a_database_that_goes_away(
    elsewhere: Ledger, hub: WatchHub, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = asyncio.Event()

    head = await store.recognise()

    async def unavailable() -> None:
        away.set()
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(store, "feed_head", unavailable)
        look = asyncio.Event()
        look.set()
        task = asyncio.create_task(Tail(store, hub, look, head).run())
        await away.wait()
    job = await created(elsewhere)
    with hub.subscribe(job.id) as subscription:
        subscription.begin(1)
        await started(elsewhere, job)
        look.set()
        assert await news_of(subscription, 2) == [(2, [2])]
    task.cancel()
    await asyncio.wait([task])


async def test_more_watches_than_allowed_are_refused_until_one_ends(hub: WatchHub) -> None:
    CALLER.set(Caller("1.1.1.1:1", "ada"))  # for this test's task alone
    with hub.subscribe(JobId("a")), hub.subscribe(JobId("a")):
        with hub.subscribe(JobId("b")):
            with pytest.raises(LimitExceeded) as refused, hub.subscribe(JobId("c")):
                pass
            assert (refused.value.limit, refused.value.value) == ("watches", 3)
        with hub.subscribe(JobId("c")):
            assert hub.watches == 3
    assert hub.watches == 0


def patient(timers: list[asyncio.TimerHandle]) -> int:
    """Count the timers that somebody may wait for as long as PATIENCE."""
    soon = asyncio.get_running_loop().time() + PATIENCE / 2
    return sum(timer.when() > soon and not timer.cancelled() for timer in timers)


async def test_a_watcher_that_is_gone_leaves_no_timer(
    hub: WatchHub, window: Window, store: SqlStore, timers: list[asyncio.TimerHandle]
) -> None:
    """It would be kept, and all that it knows, for as long as it was going to wait."""
    follower = Follower(Feed(store, window), Selection(), Place(0))
    with hub.follow(follower), hub.subscribe(JobId("a")) as subscription:
        assert (await follower.news(PATIENCE)).synced
        timers.clear()
        waits = [asyncio.create_task(each.news(PATIENCE)) for each in (follower, subscription)]
        while patient(timers) < 2:
            await asyncio.sleep(0)
        for wait in waits:
            wait.cancel()
    assert patient(timers) == 0


async def test_a_draining_hub_ends_every_watch_and_takes_no_more(hub: WatchHub) -> None:
    with hub.subscribe(JobId("a")) as subscription:
        hub.drain()
        with pytest.raises(Draining), hub.subscribe(JobId("b")):
            pass
        with pytest.raises(Draining):
            await subscription.news(PATIENCE)
    assert hub.watches == 0


@pytest.mark.parametrize("change", ["seq = 1", "epoch = 'other'"])
async def test_a_database_that_was_restored_ends_every_watch_and_the_next_ones_work(
    here: Ledger,
    hub: WatchHub,
    tail: None,
    look: asyncio.Event,
    caplog: pytest.LogCaptureFixture,
    change: str,
    database: Database,
) -> None:
    job = await started(here, await created(here))
    with hub.subscribe(job.id) as subscription:
        subscription.begin(2)
        async with database.writer.begin() as connection:
            await connection.execute(text("DELETE FROM job_transitions"))
            await connection.execute(text("UPDATE jobs SET change_seq = 1"))
            await connection.execute(text(f"UPDATE feed SET {change}"))
        look.set()
        with pytest.raises(Draining):
            await subscription.news(PATIENCE)
    assert "restored" in caplog.text
    with hub.subscribe(job.id) as subscription:
        subscription.begin(2)
        await here.apply(Report(job_id=job.id, progress=10))
        look.set()
        assert (await news_of(subscription, 3))[-1][0] == 3


async def test_many_watchers_are_woken_a_few_at_a_time_and_none_is_forgotten(
    here: Ledger, store: SqlStore, look: asyncio.Event
) -> None:
    hub = WatchHub(Window(0), look.set, max_watches=1000)
    async with Ledger(store, hub.publish, max_waiting=100) as ledger:
        job = await created(ledger)
        with ExitStack() as stack:
            subscriptions = [stack.enter_context(hub.subscribe(job.id)) for _ in range(500)]
            for subscription in subscriptions:
                subscription.begin(1)
            told: list[int] = []

            async def watch(subscription: Subscription) -> None:
                await subscription.news(PATIENCE)
                told.append(len(told))

            watchers = [asyncio.create_task(watch(s)) for s in subscriptions]
            await asyncio.sleep(0)
            await started(ledger, job)
            assert len(told) < 500  # the caller is answered while they are still being told
            await asyncio.gather(*watchers)
    assert len(told) == 500


async def test_a_hole_in_the_feed_is_told_counted_and_ends_every_watch(
    here: Ledger,
    hub: WatchHub,
    store: SqlStore,
    look: asyncio.Event,
    caplog: pytest.LogCaptureFixture,
    database: Database,
) -> None:
    """It is impossible by design; this one is made by hand."""
    job = await created(here)
    tail = Tail(store, hub, look, await store.recognise())
    task = asyncio.create_task(tail.run())
    with hub.subscribe(job.id) as subscription:
        subscription.begin(1)
        async with database.writer.begin() as connection:
            await connection.execute(text("UPDATE feed SET seq = seq + 1"))
        look.set()
        with pytest.raises(Draining):
            await subscription.news(PATIENCE)
    assert "a bug: the feed has a hole" in caplog.text
    assert (tail.holes, hub.seq) == (1, 2)
    with hub.subscribe(job.id) as subscription:
        subscription.begin(1)
        await started(here, job)
        assert await news_of(subscription, 2) == [(2, [2])]
    task.cancel()
    await asyncio.wait([task])


async def test_a_transition_is_not_lost_where_its_job_went_on_beyond_the_page(
    elsewhere: Ledger,
    hub: WatchHub,
    store: SqlStore,
    look: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tail_module, "PAGE", 2)
    job = await created(elsewhere)
    with hub.subscribe(job.id) as subscription:
        subscription.begin(1)
        await started(elsewhere, job)
        for _ in range(3):
            await created(elsewhere)
        await elsewhere.apply(Report(job_id=job.id, progress=10))
        task = asyncio.create_task(Tail(store, hub, look, await store.recognise()).run())
        look.set()
        seen = await news_of(subscription, 3)
    assert [version for _, steps in seen for version in steps] == [2]
    task.cancel()
    await asyncio.wait([task])


async def test_a_server_that_was_away_longer_than_deletions_are_known_begins_anew(
    elsewhere: Ledger, hub: WatchHub, store: SqlStore, look: asyncio.Event
) -> None:
    job = await created(elsewhere)
    job = await started(elsewhere, job)
    await elsewhere.apply(Transit(job_id=job.id, target=JobStatus.COMPLETED))
    await elsewhere.apply(Delete(job_id=job.id, user_id="ada"))
    assert await store.forget_deletions(Micros(0), limit=10) == 1
    with hub.subscribe(job.id) as subscription:
        subscription.begin(1)
        task = asyncio.create_task(Tail(store, hub, look, await store.recognise()).run())
        look.set()
        with pytest.raises(Draining):
            await subscription.news(PATIENCE)
    assert hub.seq == 4
    task.cancel()
    await asyncio.wait([task])


async def test_a_feed_watcher_keeps_its_cursor_when_the_hub_restarts(
    here: Ledger, elsewhere: Ledger, hub: WatchHub, window: Window, store: SqlStore
) -> None:
    """What lies between was never sent to it."""
    for user_id in ("ada", "nobody"):
        follower = Follower(Feed(store, window), Selection(user_id=user_id), Place(0))
        with hub.follow(follower):
            await follower.news(PATIENCE)
            known = hub.seq
            assert await follower.news(0.0) is None
            for _ in range(5):
                await created(elsewhere)
            head = (await store.feed_head()).seq
            hub.restart(head)
            await created(here)
            assert hub.seq == head + 1
            with pytest.raises(Draining):
                await follower.news(PATIENCE)
            assert follower.place == Place(known)
