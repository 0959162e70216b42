"""What the leases of many idle jobs cost: few statements, no change, and no large read."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import Claim, Create, CreateAll, Renew, Report
from jobledger_server.domain.errors import JobNotFound, LeaseLost
from jobledger_server.domain.job import Job, JobId, Lease, Micros, Payload
from jobledger_server.domain.limits import MAX_CLAIMED_JOBS, MAX_SLOTS
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.database import Database, open_database
from jobledger_server.sql.database_url import parse_url
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.sql.transaction import SqlTransaction
from tests.support.counted import counting
from tests.support.ledger_calls import apply_all, claim_jobs, create_all, renew_all

RENEWALS = 3
"""In a minute: a worker sends a message each third of a lease, which lasts a minute by default."""

TRANSACTIONS = ("BEGIN", "BEGIN IMMEDIATE", "COMMIT")


CLAIM = Claim(
    worker_id="w",
    job_types=frozenset({"render"}),
    max_jobs=MAX_CLAIMED_JOBS,
    lease_duration=Micros(60_000_000),
)


async def claimed(ledger: Ledger, count: int, **fields: object) -> list[Job]:
    creations = (Create(user_id="ada", job_type="render", **fields),) * count
    await create_all(ledger, CreateAll(creations))
    jobs: list[Job] = []
    while len(jobs) < count:
        jobs += await claim_jobs(ledger, CLAIM)
    return jobs


async def test_1000_idle_jobs_cost_at_most_10_statements_a_minute_and_no_change(
    ledger: Ledger, store: SqlStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counting(database, monkeypatch) as counted:
        jobs = await claimed(ledger, MAX_SLOTS)
        seq = (await store.feed_head()).seq
        counted.reset()
        for _ in range(RENEWALS):
            leases = await renew_all(ledger, jobs)
        statements = [each for each in counted.statements if each not in TRANSACTIONS]
        assert 0 < len(statements) <= 10, statements
        assert (await store.feed_head()).seq == seq
    assert await store.read_jobs([job.id for job in jobs]) == renewed(jobs, leases)


async def test_a_renewal_reads_and_answers_the_same_for_small_and_large_jobs(
    ledger: Ledger, store: SqlStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs of another server: this one has cached none of them."""
    small = await claimed(ledger, 10)
    large = await claimed(ledger, 10, parameters=Payload(b"x" * 250_000))
    first = await claimed(ledger, 1)
    database = open_database(parse_url(database_url))
    with counting(database, monkeypatch) as counted:
        other = SqlStore(database)
        read: list[int] = []
        async with Ledger(other, lambda _: None, max_waiting=100) as renewing:
            await renew_all(renewing, first)  # opens a connection
            for jobs in (small, large):
                counted.reset()
                leases = await renew_all(renewing, jobs)
                read.append(counted.bytes)
                ids = [job.id for job in jobs]
                assert await store.read_jobs(ids) == renewed(jobs, leases)
        await other.close()
    assert 0 < read[0] == read[1] < 10 * 1000


async def test_a_report_after_a_renewal_still_finds_the_whole_job_in_the_cache(
    ledger: Ledger, store: SqlStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counting(database, monkeypatch) as counted:
        jobs = await claimed(ledger, 10, parameters=Payload(b"x" * 250_000))
        await renew_all(ledger, jobs)
        counted.reset()
        reports = [Report(job_id=job.id, attempt=1, progress=5) for job in jobs]
        reported = await apply_all(ledger, reports)
        assert counted.bytes < 10 * 1000
    assert {each.job.parameters for each in reported} == {jobs[0].parameters}
    after = await store.read_jobs([job.id for job in jobs])
    assert after == {each.job.id: each.job for each in reported}


async def test_a_refused_renewal_renews_nothing_and_the_others_are_renewed(
    ledger: Ledger, store: SqlStore
) -> None:
    jobs = await claimed(ledger, 3)
    renewals = [
        Renew(job_id=jobs[0].id, attempt=2),
        Renew(job_id=JobId("nowhere"), attempt=1),
        Renew(job_id=jobs[1].id, attempt=1, job_types=frozenset({"other"})),
        Renew(job_id=jobs[2].id, attempt=1, job_types=frozenset({"render"})),
    ]
    *refusals, lease = await ledger.renew(renewals, SERVICE)
    assert list(map(type, refusals)) == [LeaseLost, JobNotFound, JobNotFound]
    assert isinstance(lease, Lease)
    after = await store.read_jobs([job.id for job in jobs])
    assert [after[job.id] for job in jobs[:2]] == jobs[:2]
    assert after[jobs[2].id] == renewed(jobs[2:], [lease])[jobs[2].id]


async def test_renewals_write_no_more_bytes_of_jobs_than_a_batch_may(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite reads the whole row that it updates."""
    jobs = await claimed(ledger, 8, parameters=Payload(b"x" * 250_000))
    sizes: list[int] = []
    renew = SqlTransaction.renew

    async def counted(self: SqlTransaction, leases: Sequence[Lease]) -> None:
        sizes.append(len(leases))
        await renew(self, leases)

    monkeypatch.setattr(SqlTransaction, "renew", counted)
    await renew_all(ledger, jobs)
    assert sizes == [5, 3]  # the fifth fills a megabyte


def renewed(jobs: Sequence[Job], leases: Sequence[Lease]) -> dict[JobId, Job]:
    """Return the jobs as they are with these leases, which are later."""
    after: dict[JobId, Job] = {}
    for job, lease in zip(jobs, leases, strict=True):
        assert job.lease_expire_time is not None
        assert lease.lease_expire_time is not None
        assert lease.lease_expire_time > job.lease_expire_time
        after[job.id] = replace(job, lease_expire_time=lease.lease_expire_time)
    return after
