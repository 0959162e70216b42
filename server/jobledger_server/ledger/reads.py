"""Reads that arrive together become one statement."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self, TypeVar

from jobledger_server.domain.errors import JobNotFound
from jobledger_server.domain.model import Job, JobId, Transition
from jobledger_server.ledger.batcher import Batcher
from jobledger_server.store import Store, StoreUnavailable

MAX_BATCH = 512
"""Jobs in one statement."""

Found = TypeVar("Found")

History = tuple[Job, list[Transition]]
"""A job and all its transitions up to its version."""


class Reads:
    """Reads jobs for their owners. Used as an `async with` block.

    A job that does not exist and another owner's are refused alike, with
    JobNotFound.
    """

    def __init__(self, store: Store, *, max_waiting: int, share: float = 1.0) -> None:
        self._store = store
        self._jobs = Batcher(
            "reads", self._read_jobs, max_batch=MAX_BATCH, max_waiting=max_waiting, share=share
        )
        self._histories = Batcher(
            "watches",
            self._read_histories,
            max_batch=MAX_BATCH,
            max_waiting=max_waiting,
            share=share,
        )
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._open.enter_async_context(self._jobs)
        await self._open.enter_async_context(self._histories)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    @property
    def tasks(self) -> tuple[asyncio.Task[None] | None, ...]:
        """The tasks that read, once the block has begun."""
        return self._jobs.task, self._histories.task

    async def job(self, job_id: JobId, user_id: str) -> Job:
        """Return the job. Raises JobNotFound, LimitExceeded, StoreUnavailable."""
        job = await self._jobs.submit(job_id)
        if job.user_id != user_id:
            raise JobNotFound(job_id)
        return job

    async def history(self, job_id: JobId, user_id: str) -> History:
        """Return the job with its transitions. Raises as `job` does."""
        job, transitions = await self._histories.submit(job_id)
        if job.user_id != user_id:
            raise JobNotFound(job_id)
        return job, transitions

    async def _read_jobs(self, ids: Sequence[JobId]) -> Sequence[Job | Exception]:
        found = await _again_if_stale(self._store.read_jobs, set(ids))
        return [found.get(job_id) or JobNotFound(job_id) for job_id in ids]

    async def _read_histories(self, ids: Sequence[JobId]) -> Sequence[History | Exception]:
        found = await _again_if_stale(self._store.read_histories, set(ids))
        return [found.get(job_id) or JobNotFound(job_id) for job_id in ids]


async def _again_if_stale(
    read: Callable[[set[JobId]], Awaitable[dict[JobId, Found]]], ids: set[JobId]
) -> dict[JobId, Found]:
    try:
        return await read(ids)
    except StoreUnavailable as error:
        if not error.stale:
            raise
        return await read(ids)
