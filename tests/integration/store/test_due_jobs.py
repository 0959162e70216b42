"""Jobs that wait for their time: when they become claimable, and what that changes."""

import asyncio
from collections import Counter

import pytest
from sqlalchemy import text

from jobledger_server.domain.commands import Cancel, ChangeStatus, LinkAsset, Release
from jobledger_server.domain.decisions import decide
from jobledger_server.domain.job import AssetLink, Instant, Job, JobError, JobId, JobStatus, Micros
from jobledger_server.sql.database import Database, open_database
from jobledger_server.sql.database_url import parse_url
from jobledger_server.sql.driver import Prepared
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.sql.statements import Statements
from tests.support.databases import several_servers
from tests.support.query_plans import plan
from tests.support.seeding import FAR, seed
from tests.support.store_writer import append, moved, new_id, read_job, read_jobs, saved, step

PAST = Instant(1_750_000_000_000_000)
"""After every time of `store_writer`, and before every time of a database."""

LONG = Micros(10**15)
"""A queue timeout from then until after every test."""


async def waiting(store: SqlStore, due: int, job_type: str = "render") -> Job:
    return await saved(
        store, job_type=job_type, schedule_time=Instant(due), queue_timeout=LONG, max_attempts=9
    )


async def claimable(store: SqlStore) -> list[JobId]:
    found = await store.find_claimable({"render": 99, "export": 99}, limit=99)
    return [each.id for each in found]


async def due_times(database: Database) -> dict[str, int | None]:
    async with database.reader.connect() as connection:
        rows = await connection.execute(text("SELECT CAST(id AS VARCHAR(36)), due_time FROM jobs"))
    return {row[0]: row[1] for row in rows}


@pytest.mark.promise(number=80)
async def test_a_job_is_claimable_once_its_time_has_come_and_not_before(store: SqlStore) -> None:
    due = [await waiting(store, PAST), await waiting(store, PAST, "export")]
    later = await waiting(store, FAR)
    at_once = await saved(store, queue_timeout=LONG)
    passed = await waiting(store, at_once.create_time)
    assert await claimable(store) == [at_once.id, passed.id]
    assert await store.promote(limit=10) == {"render": 1, "export": 1}
    assert await claimable(store) == [due[0].id, due[1].id, at_once.id, passed.id]
    assert await store.promote(limit=10) == {}
    assert later.id not in await claimable(store)


async def test_a_promotion_is_no_change_of_the_job(store: SqlStore) -> None:
    job = await waiting(store, PAST)
    before = await store.changes_after(0, limit=10)
    assert await store.promote(limit=10) == {"render": 1}
    assert await store.changes_after(0, limit=10) == before
    assert (await read_job(store, job.id)).job == job


async def test_the_longest_due_jobs_are_promoted_first_and_no_more_than_asked_for(
    store: SqlStore,
) -> None:
    jobs = [await waiting(store, PAST - number) for number in range(5)]
    promoted = []
    for count in (2, 2, 1, 0):
        assert sum((await store.promote(limit=2)).values()) == count
        promoted += sorted(set(await claimable(store)) - set(promoted))
    assert set(promoted[:2]) == {jobs[4].id, jobs[3].id}
    assert set(promoted[2:4]) == {jobs[2].id, jobs[1].id}
    assert promoted[4:] == [jobs[0].id]


async def test_a_job_that_goes_on_after_a_pause_waits_for_its_time_too(
    store: SqlStore, database: Database
) -> None:
    job = await saved(store, max_attempts=2, queue_timeout=LONG, initial_backoff=Micros(10**8))
    job = await moved(store, job, JobStatus.PROCESSING)
    error = JobError("DISK_FULL", "no space is left")
    retry = step(
        job, ChangeStatus(job_id=job.id, target=JobStatus.FAILED, error=error, retryable=True)
    )
    await append(store, retry)
    assert await due_times(database) == {job.id: retry.job.retry_time}
    assert await claimable(store) == []
    assert await store.promote(limit=10) == {"render": 1}  # 2023 is over
    assert await claimable(store) == [job.id]
    # What was changed before its time waits on, and what is changed after it is claimable.
    other = await moved(store, await saved(store), JobStatus.PROCESSING)
    released = step(other, Release(job_id=other.id, attempt=1, delay=Micros(FAR)))
    await append(store, released)
    for waits in (retry.job, released.job):
        link = LinkAsset(job_id=waits.id, link=AssetLink("t", "", "p", 1, "p"))
        linked = decide(waits, link, now=PAST, new_id=new_id)
        await append(store, linked)
    assert await due_times(database) == {job.id: None, other.id: released.job.retry_time}
    assert await store.promote(limit=10) == {}


async def test_a_job_that_ended_before_its_time_waits_no_more(
    store: SqlStore, database: Database
) -> None:
    job = await waiting(store, PAST)
    cancelled = step(job, Cancel(job_id=job.id, user_id="ada"))
    assert cancelled.via is not None
    await append(store, cancelled.via, cancelled)
    assert await due_times(database) == {job.id: None}
    assert await store.promote(limit=10) == {}


@several_servers
async def test_a_promotion_leaves_what_is_locked_and_never_waits(store: SqlStore) -> None:
    jobs = [await waiting(store, PAST + number) for number in range(3)]
    locked, other = jobs[0], jobs[1]
    cancelled = step(other, Cancel(job_id=other.id, user_id="ada"))
    assert cancelled.via is not None
    async with asyncio.timeout(20):
        async with store.transaction() as transaction:
            await transaction.load_jobs([locked.id, other.id])
            assert await store.promote(limit=1) == {"render": 1}
            assert await claimable(store) == [jobs[2].id]
            assert await store.promote(limit=1) == {}
            await transaction.append([cancelled.via, cancelled])
        assert await store.promote(limit=10) == {"render": 1}
    assert await claimable(store) == [locked.id, jobs[2].id]


@several_servers
async def test_servers_that_promote_at_once_count_each_job_once(
    database_url: str, database: Database
) -> None:
    await seed(database, 2000, due_time=1)
    stores = [SqlStore(open_database(parse_url(database_url))) for _ in range(3)]
    counted: Counter[str] = Counter()

    async def promote(store: SqlStore) -> None:
        while found := await store.promote(limit=50):
            counted.update(found)

    await asyncio.gather(*map(promote, stores))
    while found := await stores[0].promote(limit=50):  # what was locked when each of them ended
        counted.update(found)
    assert counted == {"many": 2000}
    assert set((await due_times(database)).values()) == {None}
    for store in stores:
        await store.close()


async def test_a_promoted_job_that_waits_for_a_retry_is_changed_as_it_is_now(
    store: SqlStore,
) -> None:
    """The cached copy of it stays right: a promotion changes nothing that is in it."""
    job = await moved(store, await saved(store, queue_timeout=LONG), JobStatus.PROCESSING)
    released = step(job, Release(job_id=job.id, attempt=1, delay=Micros(10)))
    await append(store, released)
    assert await store.promote(limit=1) == {"render": 1}
    async with store.transaction() as transaction:
        assert await transaction.load_jobs([job.id]) == {job.id: released.job}
    again = await moved(store, released.job, JobStatus.PROCESSING)
    assert await read_jobs(store, [job.id]) == {job.id: again}


@pytest.mark.parametrize("due_time", [FAR, 1])
async def test_due_jobs_are_found_by_an_index_however_many_wait(
    database: Database,
    due_time: int,
) -> None:
    """Whether any is due or all are, as far as the planner knows; and by default settings."""
    await seed(database, 20_000, due_time=due_time)
    statements = Statements(database.dialect, database.reader.dialect)
    for statement, values in ((statements.any_due, {}), (statements.promote, {"count": 200})):
        prepared = Prepared(statement, database.reader.dialect)
        found = await plan(database, prepared.text, prepared.values(values))
        assert "ix_jobs_due_time" in found
        assert "Seq Scan" not in found
        assert "SCAN jobs" not in found
