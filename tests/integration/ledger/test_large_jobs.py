"""Jobs that are large: however many are asked for at once, few payloads are read at once."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import pytest

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import Create, CreateAll
from jobledger_server.domain.job import Job, JobId, Payload
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.ledger.reads import Reads
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.sql.transaction import SqlTransaction
from jobledger_server.store import Store, StoredJob
from jobledger_server.tuning import Tuning
from tests.support.databases import sqlite_only
from tests.support.ledger_calls import apply, create_all

SIZE = 200_000
JOBS = 60


class CountedStore:
    """The real store; it notes how many jobs each read asks for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.reads: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def read_jobs(self, ids: Collection[JobId], *, full: bool) -> dict[JobId, StoredJob]:
        self.reads.append(len(ids))
        return await self._store.read_jobs(ids, full=full)


@sqlite_only
@pytest.mark.parametrize("full", [False, True])
async def test_one_statement_reads_few_jobs(ledger: Ledger, store: SqlStore, *, full: bool) -> None:
    most = 64
    create = Create(user_id="ada", job_type="t", parameters=Payload(b"\x0a"))
    jobs = await create_all(ledger, CreateAll((create,) * 200))
    counted = CountedStore(store)
    async with Reads(counted, max_waiting=1000) as reads:
        found = await asyncio.gather(
            *(reads.job(job.id, "ada", SERVICE, full=full) for job in jobs)
        )
        assert [each.job for each in found] == jobs
        assert sum(counted.reads) == len(jobs)
        assert max(counted.reads) <= most
        counted.reads.clear()
        await asyncio.gather(
            *(reads.job(jobs[0].id, "ada", SERVICE, full=full) for _ in range(most))
        )
        assert counted.reads == [1]  # the same job is read once


@sqlite_only
async def test_fewer_jobs_are_read_at_once_while_they_are_large(
    ledger: Ledger, store: SqlStore
) -> None:
    async def created(size: int) -> list[Job]:
        create = Create(user_id="ada", job_type="t", parameters=Payload(b"\x0a" * size))
        return await create_all(ledger, CreateAll((create,) * 16))

    large, small = await created(SIZE), await created(1)
    counted = CountedStore(store)
    tuning = Tuning(full_read_batch=8, full_read_bytes=2 * SIZE)
    async with Reads(counted, max_waiting=1000, tuning=tuning) as reads:
        for jobs in (large, small):
            await asyncio.gather(*(reads.job(job.id, "ada", SERVICE, full=True) for job in jobs))
    assert counted.reads == [8, 3, 3, 2, 3, 8, 5]


@sqlite_only
async def test_large_creations_come_in_small_batches(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small command waits for the batch under way, and for its own."""
    written: list[int] = []
    append = SqlTransaction.append

    async def measured(self: SqlTransaction, decisions: Sequence[Decision], **last: bool) -> Any:
        written.append(sum(decision.job.parameters_bytes for decision in decisions))
        return await append(self, decisions, **last)

    monkeypatch.setattr(SqlTransaction, "append", measured)
    create = Create(user_id="ada", job_type="t", parameters=Payload(b"\x0a" * SIZE))
    await asyncio.gather(*(apply(ledger, create) for _ in range(JOBS)))
    assert sum(written) == JOBS * SIZE
    assert max(written) < 1024 * 1024 + SIZE
