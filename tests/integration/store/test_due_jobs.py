"""Jobs that wait for their time: when they become claimable, and what that changes."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from sqlalchemy import text

from jobledger_server.check.invariants import violations
from jobledger_server.domain.commands import ChangeStatus, LinkAsset, Release
from jobledger_server.domain.decisions import decide
from jobledger_server.domain.job import (
    AssetLink,
    Instant,
    Job,
    JobError,
    JobId,
    JobStatus,
    Micros,
    Phase,
)
from jobledger_server.ledger.due_jobs import make_due_ready
from jobledger_server.ledger.known_limits import KnownLimits
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.sql.statements import statements_for
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


async def claimable(store: SqlStore) -> set[JobId]:
    found = await store.find_claimable({"render": 99, "export": 99}, limit=99)
    return {each.id for each in found}


async def promoted(store: SqlStore, limit: int = 10) -> Sequence[Job]:
    return await make_due_ready(store, KnownLimits(store), most=limit)


async def phases(database: Database) -> dict[str, Phase | None]:
    async with database.reader.connect() as connection:
        rows = await connection.execute(text("SELECT CAST(id AS VARCHAR(36)), phase FROM jobs"))
    return {row[0]: None if row[1] is None else Phase(row[1]) for row in rows}


async def test_a_job_is_claimable_once_its_time_has_come_and_not_before(
    store: SqlStore, database: Database
) -> None:
    due = [await waiting(store, PAST), await waiting(store, PAST, "export")]
    later = await waiting(store, FAR)
    at_once = await saved(store, queue_timeout=LONG)
    passed = await waiting(store, at_once.create_time)
    assert await claimable(store) == {at_once.id, passed.id}
    assert [job.id for job in await promoted(store)] == [job.id for job in due]
    assert await claimable(store) == {due[0].id, due[1].id, at_once.id, passed.id}
    assert await promoted(store) == []
    assert later.id not in await claimable(store)
    assert await violations(database) == []


async def test_a_job_that_falls_due_does_not_change(store: SqlStore) -> None:
    job = await waiting(store, PAST)
    before = await store.changes_after(0, limit=10)
    (ready,) = await promoted(store)
    assert (ready.phase, ready.version, ready.update_time) == (Phase.READY, 1, job.update_time)
    after = await store.changes_after(0, limit=10)
    assert [change.seq for change in after.changes] == [change.seq for change in before.changes]
    assert (await read_job(store, job.id)).job == ready


async def test_the_longest_due_jobs_are_found_first_and_no_more_than_asked_for(
    store: SqlStore,
) -> None:
    jobs = [await waiting(store, PAST - number) for number in range(5)]
    found = [[job.id for job in await promoted(store, limit=2)] for _ in range(4)]
    assert found == [[jobs[4].id, jobs[3].id], [jobs[2].id, jobs[1].id], [jobs[0].id], []]


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
    assert await phases(database) == {job.id: Phase.SCHEDULED}
    assert await claimable(store) == set()
    (ready,) = await promoted(store)  # 2023 is over
    assert await claimable(store) == {job.id}
    # What was changed before its time waits on, and what is changed after it is claimable.
    other = await moved(store, await saved(store), JobStatus.PROCESSING)
    released = step(other, Release(job_id=other.id, attempt=1, delay=Micros(FAR)))
    await append(store, released)
    for waits in (ready, released.job):
        link = LinkAsset(job_id=waits.id, link=AssetLink("t", "", "p", 1, "p"))
        linked = decide(waits, link, now=PAST, new_id=new_id)
        await append(store, linked)
    assert await phases(database) == {job.id: Phase.READY, other.id: Phase.SCHEDULED}
    assert await promoted(store) == []
    assert await violations(database) == []


@several_servers
async def test_servers_that_promote_at_once_count_each_job_once(
    store: SqlStore, database: Database
) -> None:
    await seed(database, 1000, schedule_time=1)
    counted: Counter[JobId] = Counter()

    async def promote() -> None:
        while found := await promoted(store, limit=50):
            counted.update(job.id for job in found)

    await asyncio.gather(*(promote() for _ in range(3)))
    # The last ones of each may have skipped jobs that another one had locked.
    await promote()
    assert (len(counted), set(counted.values())) == (1000, {1})
    assert await violations(database) == []


async def test_a_job_that_waited_for_a_retry_is_changed_as_it_is_now(store: SqlStore) -> None:
    """The cached copy of it is as its row."""
    job = await moved(store, await saved(store, queue_timeout=LONG), JobStatus.PROCESSING)
    released = step(job, Release(job_id=job.id, attempt=1, delay=Micros(10)))
    await append(store, released)
    (ready,) = await promoted(store)
    async with store.transaction() as transaction:
        assert await transaction.load_jobs([job.id]) == {job.id: ready}
    again = await moved(store, ready, JobStatus.PROCESSING)
    assert await read_jobs(store, [job.id]) == {job.id: again}


@pytest.mark.parametrize("schedule_time", [FAR, 1])
async def test_due_jobs_are_found_by_an_index_however_many_wait(
    database: Database, schedule_time: int
) -> None:
    """Whether any is due or all are, as far as the planner knows; and by default settings."""
    count = 20_000 if database.dialect.name == "postgresql" else 2000
    await seed(database, count, schedule_time=schedule_time)
    blocking = statements_for(database.dialect).blocking
    news = database.dialect.bind_list("types", ["many", "few"])
    for statement, values in ((blocking.due, {"count": 200}), (blocking.news, news)):
        found = await plan(database, statement.text, statement.values(values))
        assert "ix_jobs_scheduled" in found
        assert "Seq Scan on jobs" not in found
        assert "SCAN jobs\n" not in f"{found}\n"
