"""A job as its handler sees it: what is to be done, and the ways to tell how it goes."""

import asyncio
from collections.abc import Mapping
from functools import cached_property
from typing import Protocol

from jobledger.v1.asset_pb2 import Asset
from jobledger.v1.job_pb2 import Job
from jobledger_client._json import from_struct

MAX_PERCENT = 100


class Holder(Protocol):
    """What stands behind a claimed job: who holds its lease and speaks for it."""

    @property
    def job(self) -> Job: ...

    @property
    def lost(self) -> bool: ...

    @property
    def cancel_requested(self) -> bool: ...

    @property
    def cancel_reason(self) -> str: ...

    def report(self, progress: int | None, message: str | None) -> None: ...

    async def link_asset(
        self, asset_type: str, url: str, storage_path: str, file_size: int
    ) -> Asset: ...


class JobFacts:
    """What is known of a job when its handler starts."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder

    @property
    def snapshot(self) -> Job:
        """The job as it was claimed."""
        return self._holder.job

    @property
    def id(self) -> str:
        return self._holder.job.id

    @property
    def job_type(self) -> str:
        return self._holder.job.job_type

    @property
    def user_id(self) -> str:
        """The owner."""
        return self._holder.job.user_id

    @property
    def attempt(self) -> int:
        """1 for the first worker that took the job, 2 for the next."""
        return self._holder.job.attempt

    @property
    def max_attempts(self) -> int:
        return self._holder.job.max_attempts

    @property
    def labels(self) -> Mapping[str, str]:
        return self._holder.job.labels

    @cached_property
    def parameters(self) -> dict[str, object]:
        """The input, as plain Python values; whole numbers are int."""
        return from_struct(self._holder.job.parameters)

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody asked to cancel the job."""
        return self._holder.cancel_requested

    @property
    def cancel_reason(self) -> str:
        """Why, in the words of who asked; may be empty."""
        return self._holder.cancel_reason


class ClaimedJob(JobFacts):
    """A job in the hands of an async handler.

    Where the job is no longer this worker's, the handler is cancelled, and each of
    these calls raises asyncio.CancelledError.
    """

    async def progress(self, progress: float | None = None, message: str | None = None) -> None:
        """Say how far the job is. Costs nothing: call it as often as there is news.

        progress: percent, 0 to 100, rounded down. Lower than before: as it is.
        message: for people; cut after 512 characters. Default: as it is.

        Returns at once; the newest report is on the wire within a tenth of a second.
        Raises ValueError for a percentage that is none.
        """
        self._check()
        percent = None if progress is None else int(progress)
        if percent is not None and not 0 <= percent <= MAX_PERCENT:
            raise ValueError(f"progress: {progress} is not from 0 to 100")
        self._holder.report(percent, message)
        # A handler that does nothing but compute and report lets others run too.
        await asyncio.sleep(0)
        self._check()

    async def add_asset(
        self, asset_type: str, *, url: str = "", storage_path: str = "", file_size: int = 0
    ) -> Asset:
        """Link something that the job has made, exactly once however often it is tried.

        asset_type: 1 to 50 characters, for instance a media type.
        url, storage_path: where it is; at least one of them.
        file_size: bytes.

        Raises InvalidField, and what the last try met where none came through for as
        long as a lease lasts.
        """
        self._check()
        return await self._holder.link_asset(asset_type, url, storage_path, file_size)

    def _check(self) -> None:
        if self._holder.lost:
            raise asyncio.CancelledError
