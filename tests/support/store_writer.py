"""Writes to a store what the domain decides, one transaction a step, by a clock of its own."""

import itertools
from collections.abc import Collection

from jobledger_server.domain.commands import ChangeStatus, Create
from jobledger_server.domain.decisions import create, decide
from jobledger_server.domain.job import Instant, Job, JobId, JobStatus
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.ids import IdSource
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import Change, StoredJob

HOLE = (
    "INSERT INTO changes (seq, job_id, user_id)"
    " SELECT max(seq) + 1, '00000000-0000-7000-8000-000000000000', 'nobody' FROM changes"
)
"""A change of a job that does not exist."""

IDS = IdSource()
CLOCK = itertools.count(1_700_000_000_000_000, 1000)


def new_id() -> str:
    return IDS.new_id(next(CLOCK))


def creation(user_id: str = "ada", **fields: object) -> Decision:
    command = Create(user_id=user_id, **{"job_type": "render", **fields})
    return create(None, command, now=Instant(next(CLOCK)), new_id=new_id)


def step(job: Job, command: object) -> Decision:
    return decide(job, command, now=Instant(next(CLOCK)), new_id=new_id)


async def append(store: SqlStore, *decisions: Decision) -> list[Change]:
    async with store.transaction() as transaction:
        await transaction.load_jobs([d.job.id for d in decisions if d.job.version > 1])
        return await transaction.append(decisions)


async def saved(store: SqlStore, user_id: str = "ada", **fields: object) -> Job:
    decision = creation(user_id, **fields)
    await append(store, decision)
    return decision.job


async def moved(store: SqlStore, job: Job, target: JobStatus, **fields: object) -> Job:
    decision = step(job, ChangeStatus(job_id=job.id, target=target, **fields))
    await append(store, decision)
    return decision.job


async def finished(store: SqlStore, **fields: object) -> Job:
    job = await moved(store, await saved(store, **fields), JobStatus.PROCESSING)
    return await moved(store, job, JobStatus.COMPLETED)


async def read_jobs(store: SqlStore, ids: Collection[JobId]) -> dict[JobId, Job]:
    """Return the jobs that exist."""
    found = await store.read_jobs(ids, full=False)
    return {job_id: stored.job for job_id, stored in found.items()}


async def read_job(store: SqlStore, job_id: JobId) -> StoredJob:
    """Return a job that exists, with its transitions and payloads."""
    return (await store.read_jobs([job_id], full=True))[job_id]
