"""Retention: what is purged, when, by which server, and what watchers are sent."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest
from sqlalchemy import text

from jobledger_server.domain.commands import ChangeStatus, Create
from jobledger_server.domain.job import Job, JobId, JobStatus, Micros
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.maintenance.retention import Retention
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import Change, JobQuery, Purgeable, StoreUnavailable
from jobledger_server.tuning import Tuning
from tests.support.databases import execute, sqlite_only
from tests.support.ledger_calls import apply
from tests.support.tasks import running

HOUR = Micros(3600 * 1_000_000)
NOW = Micros(0)


async def ended(ledger: Ledger, **fields: object) -> Job:
    job = (await apply(ledger, Create(user_id="ada", job_type="t", **fields))).job
    await apply(ledger, ChangeStatus(job_id=job.id, target=JobStatus.PROCESSING))
    return (await apply(ledger, ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED))).job


Aged = Callable[..., Awaitable[None]]


@pytest.fixture
def aged(database: Database) -> Aged:
    """Move the times at which jobs finished back."""

    async def aged(*jobs: Job, by: int) -> None:
        async with database.writer.begin() as connection:
            for job in jobs:
                await connection.execute(
                    text(
                        f"UPDATE jobs SET complete_time = complete_time - {by}"
                        f" WHERE id = '{job.id}'"
                    )
                )

    return aged


async def ids(store: SqlStore) -> set[JobId]:
    page = await store.list_jobs(JobQuery(user_id="ada"), before=None, limit=100)
    assert page.next_before is None
    return {job.id for job in page.jobs}


async def test_old_terminal_jobs_are_purged_and_the_rest_stays(
    store: SqlStore, ledger: Ledger, published: list[Change], aged: Aged
) -> None:
    old, young = [await ended(ledger) for _ in range(3)], await ended(ledger)
    running = (await apply(ledger, Create(user_id="ada", job_type="t"))).job
    await aged(*old, by=2 * HOUR)
    published.clear()
    assert not await Retention(store, ledger, jobs=HOUR, deletions=HOUR).purge_some()
    assert await ids(store) == {young.id, running.id}
    assert [change.deleted for change in published] == [True] * 3
    page = await store.changes_after(0, limit=100)
    assert sum(change.deleted for change in page.changes) == 3


async def test_jobs_are_purged_in_batches_that_report_if_there_are_more(
    store: SqlStore, ledger: Ledger, aged: Aged
) -> None:
    tuning = Tuning(purge_batch=2, purge_search=3)
    jobs = [await ended(ledger) for _ in range(7)]
    await aged(*jobs, by=2 * HOUR)
    retention = Retention(store, ledger, jobs=HOUR, deletions=HOUR, tuning=tuning)
    assert [await retention.purge_some() for _ in range(3)] == [True, True, False]
    assert await ids(store) == set()


async def test_retention_starts_over_under_a_new_epoch_whose_feed_may_be_shorter(
    store: SqlStore, ledger: Ledger, database: Database, aged: Aged
) -> None:
    retention = Retention(store, ledger, jobs=HOUR, deletions=NOW)
    await aged(*[await ended(ledger) for _ in range(3)], by=2 * HOUR)
    await retention.purge_some()
    # As a standby that was far behind.
    await execute(database, "DELETE FROM changes", "UPDATE feed SET compacted_seq = 0")
    await store.renew_epoch((await store.feed_head()).epoch)
    await aged(await ended(ledger), by=2 * HOUR)
    await retention.purge_some()
    assert await ids(store) == set()


YEAR = 365 * 24 * HOUR


@pytest.mark.parametrize("default", [HOUR, None], ids=["an hour", "for ever"])
async def test_jobs_are_purged_earlier_or_later_by_the_retention_of_their_type(
    store: SqlStore, ledger: Ledger, aged: Aged, default: Micros | None
) -> None:
    tuning = Tuning(purge_search=2)
    brief = [await ended(ledger, retention=Micros(HOUR // 2)) for _ in range(3)]
    long = await ended(ledger, retention=Micros(10 * HOUR))
    plain = await ended(ledger)
    fresh = await ended(ledger, retention=Micros(HOUR // 2))
    await aged(*brief, by=HOUR * 3 // 4)
    await aged(long, plain, by=2 * HOUR)
    retention = Retention(store, ledger, jobs=default, deletions=HOUR, tuning=tuning)
    while await retention.purge_some():
        pass
    kept = {long.id, fresh.id} if default else {long.id, fresh.id, plain.id}
    assert await ids(store) == kept
    await aged(long, by=9 * HOUR)
    await retention.purge_some()
    assert await ids(store) == kept - {long.id}


@pytest.mark.usefixtures("damaged")
async def test_a_search_by_the_default_remembers_no_job_with_a_retention_of_its_own(
    store: SqlStore, ledger: Ledger, aged: Aged, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Purgeable] = []
    find = store.find_purgeable

    async def recorded(age: Micros, *, after: int, limit: int) -> Purgeable:
        found.append(await find(age, after=after, limit=limit))
        return found[-1]

    monkeypatch.setattr(store, "find_purgeable", recorded)
    for _ in range(3):
        await aged(await ended(ledger, retention=YEAR), by=2 * HOUR)
    retention = Retention(store, ledger, jobs=HOUR, deletions=HOUR)
    for _ in range(2):
        assert not await retention.purge_some()
    head = (await store.feed_head()).seq
    assert [(each.jobs, each.later, each.through) for each in found] == [([], [], head)] * 2
    assert len(await ids(store)) == 3


@pytest.mark.usefixtures("damaged")
@pytest.mark.parametrize("tuning", [Tuning(purge_search=2, scanned_ends=9)])
async def test_jobs_whose_end_is_in_the_future_do_not_keep_the_others(
    store: SqlStore, ledger: Ledger, aged: Aged, monkeypatch: pytest.MonkeyPatch, tuning: Tuning
) -> None:
    """A clock was fast. Also after a restart; and each part of the feed is read once."""
    dated_late: list[JobId] = []
    read: list[int] = []
    find = store.find_purgeable

    async def recorded(age: Micros, *, after: int, limit: int) -> Purgeable:
        read.append(after)
        return await find(age, after=after, limit=limit)

    monkeypatch.setattr(store, "find_purgeable", recorded)
    for _ in ("a server", "the same after a restart"):
        fast, *jobs = [await ended(ledger) for _ in range(8)]
        dated_late.append(fast.id)
        await aged(fast, by=-YEAR)
        await aged(*jobs, by=2 * HOUR)
        read.clear()
        retention = Retention(store, ledger, jobs=HOUR, deletions=HOUR, tuning=tuning)
        while await retention.purge_some():
            pass
        assert await ids(store) == set(dated_late)
        assert read == sorted(set(read))
        for _ in range(2):
            assert not await retention.purge_some()
        assert read[-1] == (await store.feed_head()).seq


@pytest.mark.usefixtures("damaged")
async def test_a_job_that_was_passed_over_is_purged_when_its_time_has_come(
    store: SqlStore, ledger: Ledger, aged: Aged
) -> None:
    tuning = Tuning(later_purges=1)
    jobs = [await ended(ledger) for _ in range(4)]
    await aged(*jobs, by=2 * HOUR)
    await aged(*jobs[:3], by=-2 * HOUR - 1_000_000)  # more than are kept
    retention = Retention(store, ledger, jobs=NOW, deletions=HOUR, tuning=tuning)
    await retention.purge_some()
    assert jobs[3].id not in await ids(store)
    async with asyncio.timeout(20):
        while await ids(store):
            await retention.purge_some()


async def purged_beside(store: SqlStore, *, callers: int) -> list[tuple[int, int]]:
    """Purge 26 jobs while callers create; return what each commit created and purged."""
    tuning = Tuning(purge_least=2, purge_batch=6)
    commits: list[tuple[int, int]] = []

    def publish(changes: Sequence[Change]) -> None:
        purged = sum(change.deleted for change in changes)
        commits.append((len(changes) - purged, purged))

    async def call() -> None:
        while True:
            await apply(ledger, Create(user_id="bob", job_type="t"))

    async with Ledger(store, publish, max_waiting=1000) as ledger, AsyncExitStack() as stack:
        await asyncio.gather(*(ended(ledger) for _ in range(26)))
        for _ in range(callers):
            await stack.enter_async_context(running(call()))
        await asyncio.sleep(0)
        commits.clear()
        retention = Retention(store, ledger, jobs=NOW, deletions=HOUR, tuning=tuning)
        assert not await retention.purge_some()
    return commits


@sqlite_only
async def test_purge_batches_grow_while_there_are_no_calls(store: SqlStore) -> None:
    commits = await purged_beside(store, callers=0)
    assert [purged for _, purged in commits] == [2, 4, 6, 6, 6, 2]


@sqlite_only
async def test_a_purge_batch_is_as_large_as_the_number_of_calls_since_the_last(
    store: SqlStore,
) -> None:
    commits = await purged_beside(store, callers=3)
    batches = []
    calls = 0
    for created, purged in commits:
        calls += created
        if purged:
            batches.append((calls, purged))
            calls = 0
    left = 26 - batches[0][1]
    for (calls, _), (_, purged) in pairwise(batches):
        assert calls
        # Some of the commands may have come since its size was chosen.
        assert min(left, 2) <= purged <= min(left, 6, max(2, calls))
        left -= purged
    assert left == 0


async def test_several_servers_purge_each_job_once(
    store: SqlStore, ledger: Ledger, aged: Aged
) -> None:
    jobs = await asyncio.gather(*(ended(ledger) for _ in range(50)))
    await aged(*jobs, by=2 * HOUR)
    async with AsyncExitStack() as stack:
        ledgers = [
            await stack.enter_async_context(Ledger(store, lambda _: None, max_waiting=1000))
            for _ in range(3)
        ]
        await asyncio.gather(
            *(Retention(store, each, jobs=HOUR, deletions=HOUR).purge_some() for each in ledgers)
        )
    assert await ids(store) == set()
    page = await store.changes_after(0, limit=1000)
    assert [change.deleted for change in page.changes].count(True) == 50
    assert page.head.seq == 50 * 3 + 50


@sqlite_only
async def test_retention_continues_after_an_outage_of_the_database(
    store: SqlStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, aged: Aged
) -> None:
    tuning = Tuning(purge_seconds=0.01)
    job = await ended(ledger)
    await aged(job, by=2 * HOUR)
    polls: list[object] = []
    find = store.find_purgeable

    async def unavailable_once(*age: object, **limit: object) -> Purgeable:
        polls.append(age)
        if len(polls) == 1:
            raise StoreUnavailable("away")
        return await find(*age, **limit)

    monkeypatch.setattr(store, "find_purgeable", unavailable_once)
    retention = Retention(store, ledger, jobs=HOUR, deletions=HOUR, tuning=tuning)
    async with running(retention.run()) as purging, asyncio.timeout(20):
        while await ids(store):
            assert not purging.done(), purging.exception()
            await asyncio.sleep(0.01)
    assert len(polls) > 1
