"""Reads: concurrent reads of jobs are batched into one statement."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import Any, Self

from jobledger_server.admission.caller import Caller
from jobledger_server.domain.errors import JobNotFound
from jobledger_server.domain.job import Asset, Job, JobId, Payloads
from jobledger_server.ledger.batcher import Batcher
from jobledger_server.ledger.stale_connections import retry_if_stale
from jobledger_server.store import Store, StoredJob
from jobledger_server.tuning import Tuning

ASSET_BYTES = 1024
"""Bytes for which an asset counts besides its texts: more than it takes, so that many small ones
are not converted at once."""

Owned = tuple[JobId, str | None]
"""A job's id, and the user id of the owner that it must have, or None for any owner."""


class Reads:
    """Reads jobs. The end of its `async with` block drains it.

    Args:
        store: The database.
        max_waiting: Reads that may wait, of each kind.
        share: The fraction of it that one caller may use, up to 1.
        tuning: How many jobs are read together.
    """

    def __init__(
        self, store: Store, *, max_waiting: int, share: float = 1.0, tuning: Tuning = Tuning()
    ) -> None:
        self._store = store
        self._full_read_batch = tuning.full_read_batch
        self._full_read_bytes = tuning.full_read_bytes
        self._basic: Batcher[Owned, StoredJob] = Batcher(
            "reads",
            partial(self._read, full=False),
            max_batch=tuning.read_batch,
            linger_ticks=tuning.linger_ticks,
            max_waiting=max_waiting,
            share=share,
        )
        self._full: Batcher[Owned, StoredJob] = Batcher(
            "full_reads",
            partial(self._read, full=True),
            max_batch=tuning.full_read_batch,
            linger_ticks=tuning.linger_ticks,
            max_waiting=max_waiting,
            share=share,
        )
        self._assets: Batcher[Job, Sequence[Asset]] = Batcher(
            "assets",
            self._read_assets,
            max_batch=tuning.read_batch,
            linger_ticks=tuning.linger_ticks,
            max_batch_bytes=tuning.asset_batch_bytes,
            measure=assets_bytes,
            max_waiting=max_waiting,
            share=share,
        )
        self._exit_stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for batcher in self.batchers:
            await self._exit_stack.enter_async_context(batcher)
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
        return tuple(batcher.task for batcher in self.batchers)

    @property
    def batchers(self) -> tuple[Batcher[Any, Any], ...]:
        """What batches the reads of jobs without their payloads, with them, and of assets."""
        return self._basic, self._full, self._assets

    async def job(self, job_id: JobId, user_id: str, caller: Caller, *, full: bool) -> StoredJob:
        """Return a user's job with its transitions, and with its payloads if `full`.

        Raises:
            JobNotFound: The job does not exist, is another user's, or none that the holder of a
                watch token may read.
            LimitExceeded: Too much waits, of this caller or of all.
            ShuttingDown: The server drains.
            StoreUnavailable: The database does not answer.
        """
        read = await self._batcher(full).submit((job_id, user_id), caller)
        scope = caller.permissions.scope
        if scope is not None and not scope.contains(read.job.id, read.job.labels):
            raise JobNotFound(job_id)
        return read

    async def jobs(
        self, ids: Sequence[JobId], user_id: str | None, caller: Caller, *, full: bool
    ) -> dict[JobId, StoredJob]:
        """Return those of the jobs that exist and are the user's, or any user's for None.

        All are in memory at once, so the caller bounds the bytes of `full` ones: it knows the
        sizes of their payloads before. Raises as `job` does, but for JobNotFound.
        """
        found = await self._batcher(full).put([(job_id, user_id) for job_id in ids], caller)
        jobs: dict[JobId, StoredJob] = {}
        for job_id, read in zip(ids, found, strict=True):
            if isinstance(read, StoredJob):
                jobs[job_id] = read
            elif not isinstance(read, JobNotFound):
                raise read
        return jobs

    async def payloads(self, ids: Sequence[JobId], caller: Caller) -> dict[JobId, Payloads]:
        """Return the payloads of those of the jobs that exist. See `jobs`."""
        found = await self.jobs(ids, None, caller, full=True)
        return {job_id: read.payloads for job_id, read in found.items()}

    async def assets(self, jobs: Sequence[Job], caller: Caller) -> dict[JobId, Sequence[Asset]]:
        """Return all assets of those of the jobs that have any, of deleted jobs too.

        The caller bounds their bytes: see `assets_bytes`, and `Store.read_assets`. Raises as `job`
        does, but for JobNotFound.
        """
        assets: dict[JobId, Sequence[Asset]] = {}
        for job, read in zip(jobs, await self._assets.put(jobs, caller), strict=True):
            if isinstance(read, Exception):
                raise read
            if read:
                assets[job.id] = read
        return assets

    def _batcher(self, full: bool) -> Batcher[Owned, StoredJob]:  # noqa: FBT001
        return self._full if full else self._basic

    async def _read(
        self, requests: Sequence[Owned], *, full: bool
    ) -> Sequence[StoredJob | Exception]:
        ids = dict.fromkeys(job_id for job_id, _ in requests)
        found = await retry_if_stale(partial(self._store.read_jobs, ids, full=full))
        if full:
            self._full.max_batch = self._fitting(found.values())
        return [
            read
            if (read := found.get(job_id)) is not None and user_id in (None, read.job.user_id)
            else JobNotFound(job_id)
            for job_id, user_id in requests
        ]

    def _fitting(self, read: Collection[StoredJob]) -> int:
        """Return how many jobs are read next: as many as fit if they are as large as these."""
        most, size = self._full_read_batch, sum(map(_payload_bytes, read))
        return min(most, 1 + self._full_read_bytes * len(read) // size) if size else most

    async def _read_assets(self, jobs: Sequence[Job]) -> Sequence[Sequence[Asset] | Exception]:
        ids = dict.fromkeys(job.id for job in jobs)
        found = await retry_if_stale(partial(self._store.read_assets, ids))
        return [found.get(job.id, ()) for job in jobs]


def _payload_bytes(read: StoredJob) -> int:
    job = read.job
    return job.parameters_bytes + job.checkpoint_bytes + read.payloads.outcome_bytes


def assets_bytes(job: Job) -> int:
    """Return an upper bound of the bytes of a job's assets in a message."""
    return job.asset_bytes + job.asset_count * ASSET_BYTES
