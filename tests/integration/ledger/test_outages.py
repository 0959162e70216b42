"""When an outage counts as over, and what becomes of the leases that expired in it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from jobledger_server.domain.commands import Create, Expire, Report
from jobledger_server.domain.job import Instant, Job, JobStatus, Micros
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.ledger.outages import MAX_GAP, Outages
from jobledger_server.maintenance.reaper import Reaper
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import StoreUnavailable
from jobledger_server.tuning import Tuning
from tests.support.databases import execute
from tests.support.ledger_calls import apply, claim, claim_jobs, created
from tests.support.store_writer import read_jobs

SECOND = 1_000_000
BATCH = 5
LEASE = Micros(60 * SECOND)
NOW = Instant(1_700_000_000 * SECOND)


def after(outages: Outages, *answers: int) -> int | None:
    """Let the database answer some seconds after NOW; return when an outage ended, likewise."""
    for answer in answers:
        outages.answered(Instant(NOW + answer))
    return None if outages.resumed_at is None else outages.resumed_at - NOW


@pytest.fixture
def serving() -> Outages:
    """What a server knows after its start."""
    outages = Outages(lambda: 0.0)
    assert outages.resumed_at is None
    assert after(outages, 0) == 0
    return outages


def test_a_server_that_polls_regularly_has_no_outage(serving: Outages) -> None:
    assert after(serving, *range(SECOND, 100 * SECOND, MAX_GAP)) == 0


def test_an_outage_of_the_database_ends_with_its_first_answer(serving: Outages) -> None:
    serving.failed()
    serving.failed()
    assert serving.resumed_at == NOW
    assert after(serving, SECOND // 2, SECOND) == SECOND // 2


def test_an_outage_of_a_frozen_process_ends_with_its_first_answer(serving: Outages) -> None:
    assert after(serving, SECOND, SECOND + MAX_GAP) == 0
    assert after(serving, SECOND + 2 * MAX_GAP + 1) == SECOND + 2 * MAX_GAP + 1


def test_answers_that_overtake_each_other_are_no_outage(serving: Outages) -> None:
    assert after(serving, SECOND, SECOND // 2, SECOND + MAX_GAP) == 0


def test_a_clock_that_was_set_back_is_followed(serving: Outages) -> None:
    """Else leases would be extended to an hour from now."""
    hour = 3600 * SECOND
    assert after(serving, -hour, -hour + SECOND) == -hour


@pytest.fixture
async def restarted(store: SqlStore, ledger: Ledger) -> AsyncIterator[Ledger]:
    """The ledger of a server that starts when that of `ledger` has ended."""
    async with Ledger(store, lambda _: None, max_waiting=10_000) as restarted:
        yield restarted


async def claimed(ledger: Ledger, count: int = 1) -> list[Job]:
    jobs = []
    for _ in range(count):
        await created(ledger, max_attempts=1)
    while len(jobs) < count:
        jobs += await claim_jobs(ledger, claim(max_jobs=100))
    return jobs


LetLeasesExpire = Callable[..., Awaitable[None]]


@pytest.fixture
def let_leases_expire(database: Database) -> LetLeasesExpire:
    """Have all leases expire some seconds ago."""

    async def let_leases_expire(seconds: int = 1) -> None:
        until = f"(SELECT MAX(update_time) FROM jobs) - {seconds * SECOND}"
        await execute(
            database,
            f"UPDATE jobs SET lease_expire_time = {until}, deadline = {until} "
            "WHERE lease_expire_time IS NOT NULL",
        )

    return let_leases_expire


async def test_a_start_extends_the_leases_that_expired_before_it(
    ledger: Ledger, restarted: Ledger, store: SqlStore, let_leases_expire: LetLeasesExpire
) -> None:
    (job,) = await claimed(ledger)
    await let_leases_expire(3 * 60)
    reaper = Reaper(restarted)
    assert await reaper.reap() == 1
    extended = (await read_jobs(store, [job.id]))[job.id]
    assert restarted.outages.resumed_at is not None
    assert extended.lease_expire_time == restarted.outages.resumed_at + LEASE
    assert await reaper.reap() == 0
    report = await apply(restarted, Report(job_id=job.id, attempt=1, progress=50))
    assert (report.applied, report.job.version) == (True, job.version + 1)


@asynccontextmanager
async def writes_refused(database: Database) -> AsyncIterator[None]:
    """Have the database refuse writes; polls do not notice it."""
    pragma, characteristics = "PRAGMA query_only", "SET SESSION CHARACTERISTICS AS TRANSACTION READ"
    refuse, allow = {
        "sqlite": (f"{pragma}=ON", f"{pragma}=OFF"),
        "postgresql": (f"{characteristics} ONLY", f"{characteristics} WRITE"),
    }[database.dialect.name]
    for statement in (refuse, allow):
        writer = database.writer.execution_options(**database.dialect.single_statement)
        async with writer.connect() as connection:
            await connection.exec_driver_sql(statement)
        if statement == refuse:
            yield


async def test_an_expiry_decided_before_an_outage_extends_the_lease_if_applied_after_it(
    restarted: Ledger, let_leases_expire: LetLeasesExpire, database: Database
) -> None:
    """As an expiry that waited in a batch while the batch before it failed."""
    (job,) = await claimed(restarted)
    restarted.outages.resumed_at = Instant(1)
    await let_leases_expire()
    async with writes_refused(database):
        with pytest.raises(StoreUnavailable):
            await apply(restarted, Report(job_id=job.id, attempt=1))
    assert (await apply(restarted, Expire(job_id=job.id))).job.leased


async def test_extended_leases_do_not_delay_later_expiries(
    ledger: Ledger, restarted: Ledger, store: SqlStore, let_leases_expire: LetLeasesExpire
) -> None:
    """An extended lease is no longer due, so that it does not block the rest."""
    jobs = await claimed(ledger, 3 * BATCH + 1)
    await let_leases_expire()
    await apply(ledger, Create(user_id="ada", job_type="other", queue_timeout=Micros(1)))
    reaper = Reaper(restarted, Tuning(reap_batch=BATCH))
    while await reaper.reap():
        pass
    found = await read_jobs(store, [job.id for job in jobs])
    assert {job.version for job in found.values()} == {jobs[0].version}
    assert all(job.leased for job in found.values())
    restarted.outages.resumed_at = Instant(1)
    await let_leases_expire()
    counts = []
    while count := await reaper.reap():
        counts.append(count)
    assert counts == [BATCH, BATCH, BATCH, 1]
    found = await read_jobs(store, [job.id for job in jobs])
    assert {job.status for job in found.values()} == {JobStatus.FAILED}
