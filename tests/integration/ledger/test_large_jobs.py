"""Jobs that are large: however many are asked for at once, few are read at once."""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import pytest

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import Cancel, ChangeStatus, Create, CreateAll, LinkAsset
from jobledger_server.domain.job import AssetLink, Job, JobId, JobStatus, Payload
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.job_sizes import JobSizes
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.ledger.reads import Reads
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.sql.transaction import SqlTransaction
from jobledger_server.store import Store
from tests.support.databases import sqlite_only
from tests.support.ledger_calls import apply, create_all

SIZE = 200_000
JOBS = 60
AT_ONCE = 4 * 1024 * 1024 // SIZE + 1
"""As many as 4 MiB hold, and one more."""


class CountedStore:
    """The real store; it notes how many jobs each read asks for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.reads: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def read_jobs(self, ids: Collection[JobId]) -> Any:
        self.reads.append(len(ids))
        return await self._store.read_jobs(ids)

    async def read_histories(self, ids: Collection[JobId]) -> Any:
        self.reads.append(len(ids))
        return await self._store.read_histories(ids)


async def large_jobs(ledger: Ledger) -> list[Job]:
    create = Create(user_id="ada", job_type="t", parameters=Payload(b"\x0a" * SIZE))
    return [(await apply(ledger, create)).job for _ in range(JOBS)]


def loads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many jobs each transaction loads from here on."""
    loaded: list[int] = []
    load_jobs = SqlTransaction.load_jobs

    async def counted(self: SqlTransaction, ids: Collection[JobId]) -> Any:
        loaded.append(len(ids))
        return await load_jobs(self, ids)

    monkeypatch.setattr(SqlTransaction, "load_jobs", counted)
    return loaded


@pytest.mark.promise(number=65)
@sqlite_only
@pytest.mark.parametrize("what", ["job", "history"])
async def test_reads_of_large_jobs_come_in_small_batches(
    ledger: Ledger, store: SqlStore, what: str
) -> None:
    jobs = await large_jobs(ledger)
    counted = CountedStore(store)
    async with Reads(counted, max_waiting=1000) as reads:
        read = getattr(reads, what)
        for job in jobs:
            await read(job.id, "ada", SERVICE)  # from here on they are known to be large
        counted.reads.clear()
        await asyncio.gather(*(read(job.id, "ada", SERVICE) for job in jobs))
        assert max(counted.reads) <= AT_ONCE
        counted.reads.clear()
        await asyncio.gather(*(read(jobs[0].id, "ada", SERVICE) for _ in range(JOBS)))
        assert len(counted.reads) <= 2  # the same job is read once


@sqlite_only
@pytest.mark.parametrize("what", ["job", "history"])
async def test_one_statement_reads_at_most_64_jobs(
    ledger: Ledger, store: SqlStore, what: str
) -> None:
    """A job that this process has not seen yet may have 768 KiB: of 512 that would be 384 MiB."""
    create = Create(user_id="ada", job_type="t")
    jobs = await create_all(ledger, CreateAll([create] * 200))
    counted = CountedStore(store)
    async with Reads(counted, max_waiting=1000) as reads:
        await asyncio.gather(*(getattr(reads, what)(job.id, "ada", SERVICE) for job in jobs))
    assert sum(counted.reads) == len(jobs)
    assert max(counted.reads) <= 64


@pytest.mark.promise(number=65)
@sqlite_only
async def test_commands_for_large_jobs_come_in_small_batches(
    ledger: Ledger, monkeypatch: Any
) -> None:
    jobs = await large_jobs(ledger)
    start = [
        ChangeStatus(job_id=job.id, target=JobStatus.PROCESSING, worker_id="w") for job in jobs
    ]
    link = AssetLink("t", "", "path", 1)
    loaded = loads(monkeypatch)
    for commands in (
        start,
        [LinkAsset(job_id=job.id, link=link) for job in jobs],
        [Cancel(job_id=job.id, user_id="ada", reason="") for job in jobs],
    ):
        await asyncio.gather(*(apply(ledger, each) for each in commands))
        assert max(loaded) <= AT_ONCE
    loaded.clear()
    same = [LinkAsset(job_id=jobs[0].id, link=link) for _ in range(JOBS)]
    await asyncio.gather(*(apply(ledger, each) for each in same))
    assert len(loaded) <= 2


@pytest.mark.promise(number=65)
@sqlite_only
async def test_large_creations_come_in_small_batches(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small command waits for the batch under way, and for its own."""
    written: list[int] = []
    append = SqlTransaction.append

    async def measured(self: SqlTransaction, decisions: Sequence[Decision], **last: bool) -> Any:
        written.append(sum(len(decision.job.parameters or b"") for decision in decisions))
        return await append(self, decisions, **last)

    monkeypatch.setattr(SqlTransaction, "append", measured)
    create = Create(user_id="ada", job_type="t", parameters=Payload(b"\x0a" * SIZE))
    await asyncio.gather(*(apply(ledger, create) for _ in range(JOBS)))
    assert sum(written) == JOBS * SIZE
    assert max(written) < 1024 * 1024 + SIZE


def test_the_sizes_of_the_most_recent_jobs_are_kept(monkeypatch: Any) -> None:
    monkeypatch.setattr("jobledger_server.ledger.job_sizes.MAX_JOBS", 2)
    sizes = JobSizes()
    for job_id in ("a", "b", "a", "c"):
        sizes.record(
            Job(
                id=JobId(job_id),
                user_id="ada",
                job_type="t",
                create_time=0,
                update_time=0,
                queue_timeout=0,
                parameters=Payload(b"x" * SIZE),
            )
        )
    read_bytes = sizes.read_counter()
    ids = ("b", "a", "c", "c")
    assert [read_bytes(JobId(job_id)) for job_id in ids] == [0, SIZE, SIZE, 0]
