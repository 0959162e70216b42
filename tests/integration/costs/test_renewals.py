"""What the leases of many idle jobs cost: few statements, no change, and no large read."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from jobledger_server.database.url import parse_url
from jobledger_server.domain.commands import Create, CreateAll, Report
from jobledger_server.domain.job import Job, Payload
from jobledger_server.domain.limits import MAX_CLAIMED_JOBS, MAX_SLOTS
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.database import Database, open_database
from jobledger_server.sql.sql_store import SqlStore
from tests.support.counted import counting
from tests.support.ledger_calls import apply_all, claim, claim_jobs, create_all
from tests.support.store_writer import read_jobs

RENEWALS = 3
"""In a minute: a worker sends a message each third of a lease, which lasts a minute by default."""

TRANSACTIONS = ("BEGIN", "BEGIN IMMEDIATE", "COMMIT")

CLAIM = claim(max_jobs=MAX_CLAIMED_JOBS)


async def claimed(ledger: Ledger, count: int, **fields: object) -> list[Job]:
    creations = (Create(user_id="ada", job_type="render", **fields),) * count
    await create_all(ledger, CreateAll(creations))
    jobs: list[Job] = []
    while len(jobs) < count:
        jobs += await claim_jobs(ledger, CLAIM)
    return jobs


async def renewed(ledger: Ledger, store: SqlStore, jobs: Sequence[Job]) -> list[Job]:
    """Renew the leases of the jobs, and check that nothing else of them changes."""
    decisions = await apply_all(ledger, [Report(job_id=job.id, attempt=1) for job in jobs])
    found = await read_jobs(store, [job.id for job in jobs])
    after = [found[job.id] for job in jobs]
    assert after == [decision.job for decision in decisions]
    for job, later in zip(jobs, after, strict=True):
        assert job.lease_expire_time is not None
        assert later.lease_expire_time is not None
        assert later.lease_expire_time > job.lease_expire_time
        assert later == replace(job, lease_expire_time=later.lease_expire_time)
    return after


async def test_1000_idle_jobs_cost_at_most_10_statements_a_minute_and_no_change(
    ledger: Ledger, store: SqlStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counting(database, monkeypatch) as counted:
        jobs = await claimed(ledger, MAX_SLOTS)
        seq = (await store.feed_head()).seq
        counted.reset()
        for _ in range(RENEWALS):
            await apply_all(ledger, [Report(job_id=job.id, attempt=1) for job in jobs])
        statements = [each for each in counted.statements if each not in TRANSACTIONS]
        assert 0 < len(statements) <= 10, statements
        assert (await store.feed_head()).seq == seq
    await renewed(ledger, store, jobs)


@pytest.mark.parametrize("progress", [None, 5])
async def test_reports_and_renewals_read_the_same_for_small_and_large_jobs(
    ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch, progress: int | None
) -> None:
    """Jobs of another server: this one has cached none of them."""
    small = await claimed(ledger, 10)
    large = await claimed(ledger, 10, parameters=Payload(b"x" * 250_000))
    first = await claimed(ledger, 1)
    database = open_database(parse_url(database_url))
    with counting(database, monkeypatch) as counted:
        read: list[int] = []
        async with Ledger(SqlStore(database), lambda _: None, max_waiting=100) as other:
            for jobs in (first, small, large):  # the first ones open a connection
                counted.reset()
                reports = [Report(job_id=job.id, attempt=1, progress=progress) for job in jobs]
                assert len(await apply_all(other, reports)) == len(jobs)
                read.append(counted.bytes)
    await database.close()
    assert 0 < read[1] == read[2] < 10 * 1000


async def test_a_report_after_a_renewal_still_finds_the_job_in_the_cache(
    ledger: Ledger, store: SqlStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = await renewed(ledger, store, await claimed(ledger, 10))
    monkeypatch.setattr("jobledger_server.sql.transaction.change_from_row", None)
    reports = [Report(job_id=job.id, attempt=1, progress=5) for job in jobs]
    reported = await apply_all(ledger, reports)
    assert await read_jobs(store, [job.id for job in jobs]) == {
        each.job.id: each.job for each in reported
    }
