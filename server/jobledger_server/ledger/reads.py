"""Reads: concurrent reads of jobs are batched into one statement."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self

from jobledger_server.admission.caller import Caller
from jobledger_server.domain.errors import JobNotFound
from jobledger_server.domain.job import Job, JobId, Transition
from jobledger_server.ledger.batcher import Batcher
from jobledger_server.ledger.job_sizes import JobSizes
from jobledger_server.ledger.stale_connections import retry_if_stale
from jobledger_server.store import Store

MAX_BATCH = 64
"""Jobs in one statement, each of up to 768 KiB. More would not be faster."""

Owned = tuple[JobId, str]
"""A job's id, and the user id of the owner that it must have."""

History = tuple[Job, list[Transition]]
"""A job and all its transitions up to its version."""


class Reads:
    """Reads jobs for their owners. The end of its `async with` block drains it.

    It raises JobNotFound for a job that does not exist and for another owner's alike.
    """

    def __init__(self, store: Store, *, max_waiting: int, share: float = 1.0) -> None:
        self._store = store
        self.sizes = JobSizes()
        self._jobs = Batcher(
            "reads",
            self._read_jobs,
            max_batch=MAX_BATCH,
            max_waiting=max_waiting,
            share=share,
            read_counter=self._read_counter,
        )
        self._histories = Batcher(
            "watches",
            self._read_histories,
            max_batch=MAX_BATCH,
            max_waiting=max_waiting,
            share=share,
            read_counter=self._read_counter,
        )
        self._exit_stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._exit_stack.enter_async_context(self._jobs)
        await self._exit_stack.enter_async_context(self._histories)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._exit_stack.aclose()

    @property
    def tasks(self) -> tuple[asyncio.Task[None] | None, ...]:
        """The tasks that read. None before the `async with` block."""
        return self._jobs.task, self._histories.task

    @property
    def batchers(self) -> tuple[Batcher[Any, Any], ...]:
        """What batches reads of jobs and of their histories."""
        return self._jobs, self._histories

    async def job(self, job_id: JobId, user_id: str, caller: Caller) -> Job:
        """Return a user's job.

        Raises JobNotFound, LimitExceeded, ShuttingDown and StoreUnavailable.
        """
        return await self._jobs.submit((job_id, user_id), caller)

    async def history(self, job_id: JobId, user_id: str, caller: Caller) -> History:
        """Return the job with its transitions. Raises as `job` does."""
        return await self._histories.submit((job_id, user_id), caller)

    async def _read_jobs(self, requests: Sequence[Owned]) -> Sequence[Job | Exception]:
        found = await retry_if_stale(partial(self._store.read_jobs, _ids(requests)))
        for read in found.values():
            self.sizes.record(read)
        return [
            job
            if (job := found.get(job_id)) is not None and job.user_id == user_id
            else JobNotFound(job_id)
            for job_id, user_id in requests
        ]

    async def _read_histories(self, requests: Sequence[Owned]) -> Sequence[History | Exception]:
        found = await retry_if_stale(partial(self._store.read_histories, _ids(requests)))
        for job, _ in found.values():
            self.sizes.record(job)
        return [
            history
            if (history := found.get(job_id)) is not None and history[0].user_id == user_id
            else JobNotFound(job_id)
            for job_id, user_id in requests
        ]

    def _read_counter(self) -> Callable[[Owned], int]:
        read_bytes = self.sizes.read_counter()
        return lambda owned: read_bytes(owned[0])


def _ids(requests: Sequence[Owned]) -> set[JobId]:
    return {job_id for job_id, _ in requests}
