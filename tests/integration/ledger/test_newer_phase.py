"""A job in a phase that only servers of the next version know, who serve the same database."""

from collections.abc import Sequence
from typing import Any

import pytest
from grpc import StatusCode
from sqlalchemy import text

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import Cancel, ChangeStatus, Create, Expire
from jobledger_server.domain.errors import PhaseUnknown, UniqueKeyTaken
from jobledger_server.domain.job import Job, JobStatus, UnknownPhase
from jobledger_server.domain.waiting import wait_reasons
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.maintenance.reaper import Reaper
from jobledger_server.rpc.status import status_of
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from tests.support.databases import execute
from tests.support.ledger_calls import apply, claim, claim_jobs, created
from tests.support.store_writer import read_job

# What newer servers write is damage to the invariants of this one.
pytestmark = [pytest.mark.usefixtures("damaged")]


@pytest.fixture
async def job(ledger: Ledger, database: Database) -> Job:
    """A job whose deadline has passed, and which newer servers count in columns of their own."""
    made = await created(ledger, concurrency_key="k", unique_key="one")
    new_schema = {
        "postgresql": "ALTER TABLE jobs DROP CONSTRAINT ck_jobs_phase",
        "sqlite": "PRAGMA ignore_check_constraints = 1",
    }
    await execute(
        database,
        new_schema[database.dialect.name],
        "UPDATE jobs SET phase = 7, deadline = 1, queue_expire_time = 1",
        "UPDATE queues SET ready = 0, claimable = 0",
    )
    return made


async def stored(database: Database) -> Sequence[Any]:
    """Return everything about jobs, and all counters."""
    rows: list[Any] = []
    async with database.reader.connect() as connection:
        for table in ("jobs", "changes", "queues", "limit_keys", "ended"):
            rows += await connection.execute(text(f"SELECT * FROM {table}"))
    return rows


async def test_it_is_not_terminal_and_keeps_its_unique_key(
    ledger: Ledger, store: SqlStore, job: Job
) -> None:
    found = (await read_job(store, job.id)).job
    assert (found.status, found.phase) == (JobStatus.QUEUED, UnknownPhase.UNKNOWN)
    again = Create(user_id="ada", job_type="render", unique_key="one")
    with pytest.raises(UniqueKeyTaken):
        await apply(ledger, again)
    facts = await store.queue_reports.wait_facts(job.id, user_id="ada")
    assert facts is not None
    assert list(wait_reasons(facts)) == []


async def test_it_is_neither_claimed_nor_changed_and_other_jobs_are(
    ledger: Ledger, database: Database, job: Job
) -> None:
    other = await created(ledger, "other")
    before = await stored(database)
    assert await claim_jobs(ledger, claim()) == []
    start = ChangeStatus(job_id=job.id, target=JobStatus.PROCESSING, worker_id="w")
    cancel = Cancel(job_id=job.id, user_id="ada")
    outcomes = await ledger.submit([cancel, start], SERVICE)
    assert [type(outcome) for outcome in outcomes] == [PhaseUnknown, PhaseUnknown]
    assert status_of(PhaseUnknown(job.id)).code == StatusCode.UNAVAILABLE.value[0]
    assert await stored(database) == before
    cancelled = Cancel(job_id=other.id, user_id="ada")
    refused, done = await ledger.submit([cancel, cancelled], SERVICE)
    assert isinstance(refused, PhaseUnknown)
    assert not isinstance(done, Exception)
    assert done[0].job.status is JobStatus.FAILED


async def test_it_is_not_expired_and_is_no_work_for_the_reaper(
    ledger: Ledger, store: SqlStore, database: Database, job: Job
) -> None:
    before = await stored(database)
    assert not (await store.news([])).overdue
    assert await Reaper(ledger).reap() == 0
    # The reaper found it before it came into this phase.
    assert not (await apply(ledger, Expire(job_id=job.id))).changed
    assert await stored(database) == before
