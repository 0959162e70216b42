"""A job as its handler sees it: what is to be done, and the calls that report on it."""

import asyncio
import enum
import logging
from collections.abc import Mapping, MutableMapping
from functools import cached_property
from typing import Any, Protocol

from jobledger.core.models import Asset, Job

MAX_PERCENT = 100

_logger = logging.getLogger("jobledger.job")


class Stop(enum.IntEnum):
    """Why a handler has to stop; a later reason outweighs the ones before it."""

    NOT = 0
    CANCELLED = 1
    TIMED_OUT = 2
    SHUTDOWN = 3
    LOST = 4


class Holder(Protocol):
    """What stands behind a claimed job: it holds the lease and makes the calls."""

    @property
    def job(self) -> Job: ...

    @property
    def state(self) -> Any: ...

    @property
    def thrown(self) -> Stop: ...

    @property
    def cancel_requested(self) -> bool: ...

    @property
    def cancel_reason(self) -> str: ...


class AsyncHolder(Holder, Protocol):
    """A holder in this event loop."""

    @property
    def insisted(self) -> bool: ...

    @property
    def abandoned(self) -> bool: ...

    def report(self, progress: int | None, message: str | None) -> None: ...

    async def ask(self) -> None: ...

    async def deliver(self) -> None: ...

    async def link_asset(self, asset: Asset) -> Asset: ...


class JobLog(logging.LoggerAdapter[logging.Logger]):
    """Logs for one job: each record has `job_id`, `job_type` and `attempt`."""

    def __init__(self, job: Job) -> None:
        facts = {"job_id": job.id, "job_type": job.job_type, "attempt": job.attempt}
        super().__init__(_logger, facts)

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        assert self.extra is not None  # noqa: S101
        kwargs["extra"] = {**kwargs.get("extra", {}), **self.extra}
        return f"job {self.extra['job_id']}: {msg}", kwargs


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
        """The job's id."""
        return self._holder.job.id

    @property
    def job_type(self) -> str:
        """What kind of work it is."""
        return self._holder.job.job_type

    @property
    def user_id(self) -> str:
        """The owner."""
        return self._holder.job.user_id

    @property
    def attempt(self) -> int:
        """1 for the first worker that claimed the job, 2 for the next."""
        return self._holder.job.attempt

    @property
    def max_attempts(self) -> int:
        """How many attempts may be lost before the job fails."""
        return self._holder.job.max_attempts

    @property
    def labels(self) -> Mapping[str, str]:
        """The owner's labels."""
        return self._holder.job.labels

    @property
    def parameters(self) -> dict[str, Any]:
        """The input. Whole numbers are `int`."""
        return self._holder.job.parameters

    @property
    def state(self) -> Any:
        """What the worker's `lifespan` yielded; None without one."""
        return self._holder.state

    @cached_property
    def log(self) -> JobLog:
        """Logs as `jobledger.job`; each record has `job_id`, `job_type` and `attempt`."""
        return JobLog(self._holder.job)

    @property
    def cancel_requested(self) -> bool:
        """Whether cancellation of the job was requested."""
        return self._holder.cancel_requested

    @property
    def cancel_reason(self) -> str:
        """Why, in the words of the caller that requested it; may be empty."""
        return self._holder.cancel_reason


class ClaimedJob(JobFacts):
    """A job in the hands of an async handler.

    If the job is no longer this worker's, the handler is cancelled, and each of these calls
    raises asyncio.CancelledError. So it does in what the handler leaves running when it returns.
    """

    def __init__(self, holder: AsyncHolder) -> None:
        super().__init__(holder)
        self.holder = holder

    async def progress(
        self, progress: float | None = None, message: str | None = None, *, wait: bool = False
    ) -> None:
        """Report how far the job is; without arguments, ask whether to go on.

        A report returns at once, and the newest one is sent within a tenth of a second: call it
        as often as there is something to report. Without arguments the call sends a report, if
        the last one is older than that, and waits up to a second for its answer. So a
        cancellation, or the loss of the lease, is known when it returns.

        Args:
            progress: percent, 0 to 100, rounded down. A lower one than before changes nothing.
            message: for people; cut after 512 characters. Default: unchanged.
            wait: return when the report is committed. It is sent at once, and none is left out.

        Raises:
            ValueError: `progress` is not from 0 to 100.
        """
        self._check()
        percent = percent_of(progress)
        if percent is None and message is None:
            await self.holder.ask()
        else:
            self.holder.report(percent, message)
            if wait:
                await self.holder.deliver()
            else:
                # A handler that does nothing but compute and report lets others run too.
                await asyncio.sleep(0)
        self._check()

    async def add_asset(
        self, asset_type: str, *, url: str = "", storage_path: str = "", file_size: int = 0
    ) -> Asset:
        """Link an asset, exactly once however often the call has to be repeated.

        Args:
            asset_type: 1 to 50 characters, for instance a media type.
            url: where it is; this or `storage_path` is required.
            storage_path: where it is, for programs that share a storage.
            file_size: bytes.

        Raises:
            InvalidField: a field breaks its rule.
            JobledgerError: no try was answered for as long as a lease lasts.
        """
        self._check()
        return await self.holder.link_asset(
            Asset(asset_type, url=url, storage_path=storage_path, file_size=file_size)
        )

    def _check(self) -> None:
        if self._holder.thrown is Stop.LOST:
            raise asyncio.CancelledError


def percent_of(progress: float | None) -> int | None:
    """Return whole percent. Raises ValueError for what is not from 0 to 100."""
    if progress is None:
        return None
    if not 0 <= progress <= MAX_PERCENT:
        raise ValueError(f"progress: {progress} is not from 0 to 100")
    return int(progress)
