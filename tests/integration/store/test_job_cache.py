"""The store never uses a cached job whose row has changed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace
from sqlalchemy import text

from jobledger_server.database.url import parse_url
from jobledger_server.domain.commands import Cancel, ChangeStatus, Delete, LinkAsset, Report
from jobledger_server.domain.job import (
    AssetLink,
    Instant,
    Job,
    JobId,
    JobStatus,
    Payload,
    Transition,
)
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.database import Database, open_database
from jobledger_server.sql.job_cache import JobCache
from jobledger_server.sql.rows import Row, change_from_row
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import Change, Outdated, StoreConflict, StoreUnavailable
from tests.support.databases import execute, out_of_reach, several_servers
from tests.support.ledger_calls import apply
from tests.support.store_writer import (
    append,
    creation,
    finished,
    moved,
    read_job,
    read_jobs,
    saved,
    step,
)

PROCESSING = JobStatus.PROCESSING


async def loaded(store: SqlStore, *ids: JobId) -> dict[JobId, Job]:
    async with store.transaction() as transaction:
        return await transaction.load_jobs(ids)


async def count(database: Database, statement: str) -> int:
    async with database.reader.connect() as connection:
        return (await connection.execute(text(statement))).scalar_one()


async def steps_of(store: SqlStore, job: Job) -> list[Transition]:
    return list((await read_job(store, job.id)).transitions)


async def running(store: SqlStore, **fields: Any) -> Job:
    return await moved(store, await saved(store, **fields), PROCESSING, worker_id="w")


async def test_a_job_that_was_written_here_is_not_read_again(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [await running(store) for _ in range(3)]
    names = [job.id for job in jobs]
    with monkeypatch.context() as patched:
        patched.setattr("jobledger_server.sql.transaction.change_from_row", None)
        assert await loaded(store, *names) == {job.id: job for job in jobs}


async def test_after_every_command_the_cached_job_equals_its_row(store: SqlStore) -> None:
    link = AssetLink("png", "https://a.example/1", "", 5, "1")
    job = await running(store, parameters=Payload(b"\n\x03\n\x01a"), labels={"k": "v"})
    commands = (
        Report(job_id=job.id, attempt=1, progress=5, progress_message="five"),
        LinkAsset(job_id=job.id, link=link, request_id="a-1"),
        Cancel(job_id=job.id, user_id="ada", reason="enough"),
        Report(job_id=job.id, attempt=1, progress=7),
    )
    for command in commands:
        async with store.transaction() as transaction:
            known = (await transaction.load_jobs([job.id]))[job.id]
            decision = step(known, command)
            await transaction.append([decision])
        assert await read_jobs(store, [job.id]) == await loaded(store, job.id)
        assert await loaded(store, job.id) == {job.id: decision.job}
    ended = await moved(store, decision.job, JobStatus.PARTIAL, result=Payload(b"\n\x03\n\x01b"))
    assert await read_jobs(store, [job.id]) == await loaded(store, job.id) == {job.id: ended}


async def test_the_cached_job_is_as_the_last_command_of_a_batch_left_it(store: SqlStore) -> None:
    job = await running(store)
    report = step(job, Report(job_id=job.id, progress=50))
    renewed = replace(report.job, lease_expire_time=Instant(10**16))
    await append(store, report, Decision(job=renewed, changed=False, renewed=True))
    assert await loaded(store, job.id) == {job.id: renewed} == await read_jobs(store, [job.id])


async def test_a_change_by_hand_is_seen(store: SqlStore, database: Database) -> None:
    job, other = await running(store), await running(store)
    await execute(database, f"UPDATE jobs SET max_attempts = 7 WHERE id = '{job.id}'")
    found = await loaded(store, job.id, other.id)
    assert found[job.id].max_attempts == 7
    assert found[other.id] == other


async def test_a_change_by_another_process_is_seen(store: SqlStore, database_url: str) -> None:
    """On SQLite no other server may, but any program that opens the file can."""
    job = await running(store)
    assert await loaded(store, job.id) == {job.id: job}
    other = SqlStore(open_database(parse_url(database_url)))
    theirs = await moved(other, job, JobStatus.COMPLETED)
    assert await loaded(store, job.id) == {job.id: theirs}
    gone = step(theirs, Delete(job_id=job.id, user_id="ada"))
    await append(other, gone)
    assert await loaded(store, job.id) == {}
    await other.close()


async def test_a_renewal_keeps_the_cached_job_only_if_its_row_is_unchanged(
    store: SqlStore, database_url: str
) -> None:
    job, changed = [await running(store) for _ in range(2)]
    other = SqlStore(open_database(parse_url(database_url)))
    report = step(changed, Report(job_id=changed.id, progress=50))
    await append(other, report)
    until = Instant(10**16)
    async with store.transaction() as transaction:
        held = await transaction.load_jobs([job.id, changed.id])
        renewed = [replace(each, lease_expire_time=until) for each in held.values()]
        await transaction.append(
            [Decision(job=each, changed=False, renewed=True) for each in renewed]
        )
    expected = {each.id: replace(each, lease_expire_time=until) for each in (job, report.job)}
    for each in (store, other):
        assert await loaded(each, job.id, changed.id) == expected
    await other.close()


@pytest.fixture
async def other(database_url: str) -> AsyncIterator[SqlStore]:
    """The store of another server on the same database."""
    store = SqlStore(open_database(parse_url(database_url)))
    yield store
    await store.close()


async def waits(database: Database, task: asyncio.Task[Any]) -> None:
    """Return once a task waits for a lock of the database."""
    locks = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    while not await count(database, locks):
        assert not task.done()


def report(job: Job) -> Decision:
    return step(job, Report(job_id=job.id, progress=60))


def renewal(job: Job) -> Decision:
    renewed = replace(job, lease_expire_time=Instant(10**16))
    return Decision(job=renewed, changed=False, renewed=True)


@several_servers
@pytest.mark.parametrize("decide", [report, renewal])
@pytest.mark.parametrize("last", [True, False])
async def test_what_was_decided_about_a_job_that_has_changed_since_is_not_written(
    store: SqlStore, other: SqlStore, *, decide: Callable[[Job], Decision], last: bool
) -> None:
    job, changed = [await running(store) for _ in range(2)]
    theirs = step(changed, Report(job_id=changed.id, progress=50))
    with pytest.raises(Outdated):
        async with store.transaction() as transaction:
            found = await transaction.load_jobs([job.id, changed.id])
            await append(other, theirs)
            await transaction.append([decide(each) for each in found.values()], last=last)
    for each in (store, other):
        assert await read_jobs(each, [job.id]) == {job.id: job}
        assert await loaded(each, job.id, changed.id) == {job.id: job, changed.id: theirs.job}


@several_servers
@pytest.mark.parametrize("decide", [report, renewal])
async def test_a_job_that_another_server_is_changing_is_waited_for(
    store: SqlStore,
    other: SqlStore,
    database: Database,
    *,
    decide: Callable[[Job], Decision],
) -> None:
    """Before the feed is locked, which the other one needs to go on."""
    job = await running(store)
    theirs = step(job, Report(job_id=job.id, progress=50))

    async def ours() -> None:
        async with store.transaction() as transaction:
            found = await transaction.load_jobs([job.id])
            await transaction.append([decide(found[job.id])], last=True)

    async with other.transaction() as transaction:
        await transaction.load_jobs([job.id])
        waiting = asyncio.create_task(ours())
        await waits(database, waiting)
        await transaction.append([theirs])
    with pytest.raises(Outdated):
        await waiting
    assert await loaded(store, job.id) == {job.id: theirs.job}


@several_servers
async def test_a_cached_job_of_a_transaction_that_has_begun_is_locked_at_once(
    store: SqlStore, other: SqlStore, database: Database
) -> None:
    job = await running(store)
    async with store.transaction() as transaction:
        await transaction.find_created([("ada", "r")])
        found = await transaction.load_jobs([job.id])
        theirs = asyncio.create_task(loaded(other, job.id))
        await waits(database, theirs)
        ours = step(found[job.id], Report(job_id=job.id, progress=50))
        await transaction.append([ours])
    assert await theirs == {job.id: ours.job}


@several_servers
async def test_the_time_is_read_after_the_wait_for_a_job_that_another_server_changed(
    store: SqlStore, other: SqlStore, database: Database, database_url: str
) -> None:
    """Else a job would change before it was changed by whoever was waited for."""
    job = await running(store)
    await append(other, report(job))
    holder = await asyncpg.connect(database_url)
    await holder.execute("BEGIN; SELECT FROM jobs FOR UPDATE")

    async def time() -> Instant:
        async with store.transaction() as transaction:
            await transaction.load_jobs([job.id])
            return await transaction.now()

    waiting = asyncio.create_task(time())
    await waits(database, waiting)
    before = await holder.fetchval("SELECT extract(epoch FROM clock_timestamp()) * 1000000")
    await holder.close()
    assert await waiting > before


@several_servers
async def test_a_report_on_a_job_that_has_changed_since_is_decided_again(
    store: SqlStore, other: SqlStore, database: Database, ledger: Ledger
) -> None:
    job = await running(store)
    async with other.transaction() as transaction:
        await transaction.load_jobs([job.id])
        ours = Report(job_id=job.id, attempt=1, progress=60)
        waiting = asyncio.create_task(apply(ledger, ours))
        await waits(database, waiting)
        await transaction.append([step(job, Cancel(job_id=job.id, user_id="ada", reason="no"))])
    both = (await waiting).job
    assert (both.version, both.progress, both.cancel_reason) == (job.version + 2, 60, "no")
    assert await read_jobs(other, [job.id]) == {job.id: both}


async def test_a_rolled_back_change_is_not_cached(store: SqlStore) -> None:
    job = await running(store)
    with pytest.raises(RuntimeError, match="crash"):
        async with store.transaction() as transaction:
            known = await transaction.load_jobs([job.id])
            await transaction.append([step(known[job.id], Report(job_id=job.id, progress=50))])
            raise RuntimeError("crash")
    assert await loaded(store, job.id) == {job.id: job}


async def test_a_commit_whose_outcome_is_unknown_is_seen(
    store: SqlStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await running(store)
    decision = step(job, Report(job_id=job.id, progress=50))
    driver = type(database.dialect.drivers()(None))
    commit = driver.commit

    async def done(self: object) -> None:
        await commit(self)
        raise RuntimeError("nobody knows")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="nobody knows"):
        patched.setattr(driver, "commit", done)
        async with store.transaction() as transaction:
            await transaction.load_jobs([job.id])
            await transaction.append([decision])
    assert await loaded(store, job.id) == {job.id: decision.job}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_nothing_is_written_after_the_database_has_rolled_back_by_itself(
    store: SqlStore, database: Database
) -> None:
    """As where the disk is full: SQLite rolls back by itself, and is in no transaction then."""
    job = await running(store)
    full = "CREATE TRIGGER full UPDATE ON jobs BEGIN SELECT RAISE(ROLLBACK, 'disk full'); END"
    await execute(database, full)
    with pytest.raises(StoreConflict, match="disk full"):
        await moved(store, job, JobStatus.COMPLETED)
    await execute(database, "DROP TRIGGER full")
    assert [step.to_status for step in await steps_of(store, job)] == [PROCESSING]
    ended = await moved(store, job, JobStatus.COMPLETED)
    assert await read_jobs(store, [job.id]) == {job.id: ended}
    assert [step.to_status for step in await steps_of(store, job)] == [PROCESSING, ended.status]


@pytest.mark.parametrize("look", ["feed_head", "verify_identity", "config"])
async def test_any_failed_read_of_an_unavailable_database_clears_the_cache(
    store: SqlStore, database: Database, look: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await running(store)
    with pytest.raises(StoreUnavailable), out_of_reach(database):
        await getattr(store, look)()
    read: list[Row] = []

    def noted(row: Row) -> Change:
        read.append(row)
        return change_from_row(row)

    monkeypatch.setattr("jobledger_server.sql.transaction.change_from_row", noted)
    assert await loaded(store, job.id) == {job.id: job}
    assert len(read) == 1


async def test_a_deleted_job_is_removed_from_the_cache(store: SqlStore) -> None:
    job = await finished(store)
    await append(store, step(job, Delete(job_id=job.id, user_id="ada")))
    assert await loaded(store, job.id) == {}


async def test_known_and_unknown_jobs_are_loaded_together(
    store: SqlStore, database_url: str
) -> None:
    known = await running(store)
    other = SqlStore(open_database(parse_url(database_url)))
    unknown = await running(other)
    await other.close()
    wanted = (known.id, unknown.id, JobId("nowhere"))
    assert await loaded(store, *wanted) == {known.id: known, unknown.id: unknown}


@pytest.mark.parametrize("number", [1, 63, 65, 150])
async def test_any_number_of_jobs_is_written_and_changed_at_once(
    store: SqlStore, database: Database, number: int
) -> None:
    """SQLite writes them in statements of a fixed number of rows, the last one padded."""
    creations = [creation(request_id=f"r-{n}") for n in range(number)]
    changes = await append(store, *creations)
    starts = [
        step(change.job, ChangeStatus(job_id=change.job.id, target=PROCESSING))
        for change in changes
    ]
    await append(store, *starts)
    ids = [change.job.id for change in changes]
    assert await read_jobs(store, ids) == {start.job.id: start.job for start in starts}
    async with store.transaction() as transaction:
        known = await transaction.load_jobs(ids)
        reports = [step(known[id_], Report(job_id=id_, progress=9)) for id_ in ids]
        await transaction.append(reports)
    assert await read_jobs(store, ids) == {report.job.id: report.job for report in reports}
    assert (await store.feed_head()).seq == 3 * number
    assert await count(database, "SELECT count(*) FROM jobs WHERE start_seq > 0") == number


def test_the_cache_is_bounded_by_bytes() -> None:
    changes = [Change(creation().job, seq) for seq in range(4)]
    cache = JobCache(3 * changes[0].memory_bytes)
    for change in changes:
        cache.put(change, "m")
    ids = [change.job.id for change in changes]
    assert set(cache.find(ids)) == set(ids[1:])
    cache.put(changes[1], "n")  # written again, and so the newest
    cache.put(changes[0], "m")
    assert set(cache.find(ids)) == {ids[n] for n in (0, 1, 3)}
    large = Change(creation(labels={"k": "x" * 255}).job, 5)
    cache.put(large, "m")
    assert set(cache.find([*ids, large.job.id])) == {ids[0], large.job.id}
    cache.clear()
    assert cache.find(ids) == {}
    for change in changes:
        cache.put(change, "m")
    assert set(cache.find(ids)) == set(ids[1:])
