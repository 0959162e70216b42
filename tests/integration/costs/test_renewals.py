"""What the leases of many idle jobs cost: few statements, no change, and no large read."""

import pytest

from jobledger_server.domain.commands import Claim, Create, CreateAll, Report
from jobledger_server.domain.job import Job, JobId, Micros
from jobledger_server.domain.limits import MAX_CLAIMED_JOBS, MAX_SLOTS
from jobledger_server.ledger import ledger as ledger_module
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from tests.support.counted import counting
from tests.support.ledger_calls import apply_all, claim_jobs, create_all

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
            renewed = await apply_all(ledger, heartbeats(jobs))
            assert len(renewed) == len(jobs)
        statements = [each for each in counted.statements if each not in TRANSACTIONS]
        assert 0 < len(statements) <= 10, statements
        assert (await store.feed_head()).seq == seq
    after = await store.read_jobs([job.id for job in jobs])
    assert after == {decision.job.id: decision.job for decision in renewed}
    before = {job.lease_expire_time for job in jobs}
    assert before.isdisjoint(job.lease_expire_time for job in after.values())


async def test_a_refused_heartbeat_renews_nothing_and_the_others_are_renewed(
    ledger: Ledger, store: SqlStore
) -> None:
    jobs = await claimed(ledger, 3)
    wrong = [
        Report(job_id=jobs[0].id, attempt=2),
        Report(job_id=JobId("nowhere"), attempt=1),
        Report(job_id=jobs[1].id, attempt=1, job_types=frozenset({"other"})),
    ]
    renewed = await apply_all(ledger, [*wrong, *heartbeats(jobs[2:])])
    assert [decision.job.id for decision in renewed] == [jobs[2].id]
    after = await store.read_jobs([job.id for job in jobs])
    assert [after[job.id] for job in jobs[:2]] == jobs[:2]
    assert after[jobs[2].id] == renewed[0].job


async def test_lease_renewals_read_no_more_bytes_than_a_batch_may(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = await claimed(ledger, 8, parameters=b"x" * 250_000)
    sizes: list[int] = []
    load = ledger_module.load_working_set

    async def counted(transaction: object, commands: list[object], **options: object) -> object:
        sizes.append(len(commands))
        return await load(transaction, commands, **options)

    monkeypatch.setattr(ledger_module, "load_working_set", counted)
    assert len(await apply_all(ledger, heartbeats(jobs))) == 8
    assert sizes == [5, 3]  # the fifth fills a megabyte


def heartbeats(jobs: list[Job]) -> list[Report]:
    return [Report(job_id=job.id, attempt=job.attempt) for job in jobs]
