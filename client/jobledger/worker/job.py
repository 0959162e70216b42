"""A job as its handler sees it: what is to be done, and the calls that report on it."""

import asyncio
import enum
import logging
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
    Sized,
)
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, Unpack, runtime_checkable

from jobledger.core.conversion import JsonObject, from_struct, to_struct
from jobledger.core.models import Asset, Job, JobError
from jobledger.core.new_job import JobOptions, NewJob
from jobledger.core.requests import count
from jobledger.worker.outcomes import Outcome
from jobledger.worker.output import (
    LOG,
    JobOutput,
    Output,
    capturing,
    checked_content_type,
    checked_stream,
    encoded,
    line_of,
)
from jobledger.worker.programs import running

ItemT = TypeVar("ItemT")

MAX_PERCENT = 100

BETWEEN_REPORTS: Final = 0.1
"""Seconds, at least, between two reports of `track`."""

MAX_CHECKPOINT = 64 * 1024
"""Bytes."""

_logger = logging.getLogger("jobledger.job")


class Stop(enum.IntEnum):
    """Why a handler has to stop; a later reason outweighs the ones before it."""

    NOT = 0
    CANCELLED = 1
    TIMED_OUT = 2
    SHUTDOWN = 3
    EXPIRED = 4
    """The lease is over by the worker's own clock."""
    LOST = 5
    """The service says that the job is no longer this worker's."""


class RunState:
    """How the run of a handler stands: a JobRun changes it, and its job goes by it.

    Args:
        raises_cancellation: whether a requested cancellation is raised in the handler.
    """

    def __init__(self, *, raises_cancellation: bool = True) -> None:
        self.reasons = {Stop.NOT}
        """Why the handler has to stop."""
        self.cancel_reason: str | None = None
        """Why cancellation was requested; None if it was not."""
        self.returned = False
        self.overdue = False
        """Whether the handler has not stopped in the time that it had to clean up."""
        self.left_thread: asyncio.Future[Any] | None = None
        """The end of the thread that was left behind, if one was."""
        self._raises_cancellation = raises_cancellation

    @property
    def strongest(self) -> Stop:
        """The reason that outweighs the others."""
        return max(self.reasons)

    @property
    def lost(self) -> bool:
        """Whether the job is no longer this worker's."""
        return self.strongest >= Stop.EXPIRED

    @property
    def raised(self) -> Stop:
        """The reason that is raised in the handler; to what it left running, LOST."""
        if self.returned:
            return Stop.LOST
        if self.strongest is Stop.CANCELLED and not self._raises_cancellation:
            return Stop.NOT
        return self.strongest

    @property
    def abandoned(self) -> bool:
        """Whether a thread that does not stop is left behind."""
        return self.overdue and bool(self.reasons & {Stop.TIMED_OUT, Stop.SHUTDOWN})


class Updates(Protocol):
    """Where a run sends what it has to say of its job: the service, or a test."""

    @property
    def output(self) -> Output:
        """Where it sends what the handler writes."""

    def report(
        self, progress: int | None, message: str | None, checkpoint: dict[str, Any] | None
    ) -> None:
        """Send this soon, unless something newer comes first."""

    async def ask(self) -> None:
        """Wait a moment for an answer of the service, if the last one is not new enough."""

    async def deliver(self) -> bool:
        """Send at once what was reported; return whether all of it is committed.

        Raises:
            JobledgerError: a report was refused.
        """

    async def link_asset(self, asset: Asset) -> Asset:
        """Link an asset, once."""

    async def renew_lease(self) -> None:
        """Renew the lease until it is lost."""

    async def send_outcome(self, outcome: Outcome) -> None:
        """Finish the job, or release it."""


@runtime_checkable
class Creator(Protocol):
    """Updates that can create jobs too."""

    async def create_child(self, job: NewJob) -> Job:
        """Create a job of the same owner."""


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


class AsyncJobLog(JobLog):
    """Called with a line, it writes that to the stream `log` of the job's output."""

    def __init__(self, job: Job, write: Callable[..., Awaitable[None]]) -> None:
        super().__init__(job)
        self._write = write

    async def __call__(self, line: str, *, wait: bool = False) -> None:
        """Write a line; see ClaimedJob.write."""
        await self._write(line_of(line), stream=LOG, wait=wait)


class BlockingJobLog(JobLog):
    """Called with a line, it writes that to the stream `log` of the job's output."""

    def __init__(self, job: Job, write: Callable[..., None]) -> None:
        super().__init__(job)
        self._write = write

    def __call__(self, line: str, *, wait: bool = False) -> None:
        """Write a line; see ClaimedJob.write."""
        self._write(line_of(line), stream=LOG, wait=wait)


class JobFacts:
    """What is known of a job when its handler starts."""

    def __init__(self, job: Job, state: Any, run: RunState) -> None:
        self._job = job
        self._state = state
        self._run = run

    @property
    def snapshot(self) -> Job:
        """The job as it was claimed."""
        return self._job

    @property
    def id(self) -> str:
        """The job's id."""
        return self._job.id

    @property
    def job_type(self) -> str:
        """What kind of work it is."""
        return self._job.job_type

    @property
    def user_id(self) -> str:
        """The owner."""
        return self._job.user_id

    @property
    def attempt(self) -> int:
        """1 for the first worker that claimed the job, 2 for the next."""
        return self._job.attempt

    @property
    def max_attempts(self) -> int:
        """How many attempts may be used up before the job fails."""
        return self._job.retry_policy.max_attempts

    @property
    def last_error(self) -> JobError | None:
        """Why the latest attempt ended that ended without ending the job; None if there is none."""
        return self._job.last_error

    @property
    def checkpoint(self) -> dict[str, Any] | None:
        """Where an earlier attempt said that the next one goes on; None if none has."""
        return self._job.checkpoint

    @property
    def labels(self) -> Mapping[str, str]:
        """The owner's labels."""
        return self._job.labels

    @property
    def parameters(self) -> dict[str, Any]:
        """The input. Whole numbers are `int`."""
        return self._job.parameters or {}

    @property
    def state(self) -> Any:
        """What the worker's `lifespan` yielded; None without one."""
        return self._state

    @property
    def cancel_requested(self) -> bool:
        """Whether cancellation of the job was requested."""
        return self._run.cancel_reason is not None

    @property
    def cancel_reason(self) -> str:
        """Why, in the words of the caller that requested it; may be empty."""
        return self._run.cancel_reason or ""

    def capture_prints(self, stream: str = "") -> AbstractContextManager[None]:
        """Send to the job's output what is printed in a `with` block, instead of to stdout.

        It is what the handler prints, in the event loop or in a thread that has its context, as
        those of `asyncio.to_thread` have: several jobs may do so at once. A print may wait while
        the service is away, but not in the event loop: there, what is too much is dropped, and the
        output says so.

        Args:
            stream: where to write. Default: the stream without a name.

        Raises:
            ValueError: no stream can have this name.
        """
        return capturing(self, checked_stream(stream))

    def put(self, data: bytes, stream: str) -> None:
        """Write what is printed or logged, which is never raised in: for the library itself."""
        raise NotImplementedError


class ClaimedJob(JobFacts):
    """A job in the hands of an async handler.

    If the job is no longer this worker's, the handler is cancelled, and each of these calls
    raises asyncio.CancelledError. So it does in what the handler leaves running when it returns.
    """

    def __init__(self, job: Job, state: Any, run: RunState, updates: Updates) -> None:
        super().__init__(job, state, run)
        self._updates = updates
        self._children = 0

    @cached_property
    def log(self) -> AsyncJobLog:
        """Logs as `jobledger.job`; each record has `job_id`, `job_type` and `attempt`.

        `await job.log(line)` writes a line to the stream `log` of the job's output.
        """
        return AsyncJobLog(self._job, self.write)

    async def progress(
        self,
        progress: float | None = None,
        message: str | None = None,
        *,
        checkpoint: JsonObject | None = None,
        wait: bool = False,
    ) -> None:
        """Report how far the job is; without arguments, ask whether to go on.

        A report returns at once, and the newest one is sent within a tenth of a second: call it
        as often as there is something to report. Without arguments the call sends a report, if
        the last one is older than that, and waits up to a second for its answer. So a
        cancellation, or the loss of the lease, is known when it returns.

        Args:
            progress: percent, 0 to 100, rounded down. A lower one than before changes nothing.
            message: for people; cut after 512 characters. Default: unchanged.
            checkpoint: where the next attempt would go on, which gets it as `job.checkpoint`: a
                JSON object of at most 64 KiB. It replaces the one before, unless it is empty.
                Default: unchanged.
            wait: return when the report is committed. It is sent at once, and none is left out.

        Raises:
            JobledgerError: the service refuses the report; only with `wait`.
            TypeError: `checkpoint` is no mapping.
            ValueError: `progress` is not from 0 to 100, or `checkpoint` is too large, or JSON
                cannot hold a part of it.
        """
        self._check()
        percent, copy = percent_of(progress), checkpoint_of(checkpoint)
        if percent is None and message is None and copy is None:
            await self._updates.ask()
        else:
            self._updates.report(percent, message, copy)
            # A handler that does nothing but compute and report lets others run too.
            await asyncio.sleep(0)
            while wait and not self._run.raised and not await self._updates.deliver():
                pass
        self._check()

    async def create_child(
        self,
        job_type: str,
        parameters: JsonObject | None = None,
        *,
        key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Create a job of the same owner, in the same group if this job has one.

        Its request id is made of this job's id and of `key`, or of how many calls without a key
        came before. So a handler that is run again creates no second one, if it makes the same
        calls.

        Args:
            job_type: 1 to 50 characters: letters, digits, `.`, `_` and `-`.
            parameters: the input: a JSON object of at most 256 KiB.
            key: which of the job's children it is: 1 to 80 characters. Default: its number.
            **options: see JobOptions, but for `request_id`.

        Raises:
            ValueError: `key` is empty, or `request_id` is given.
            RequestIdReused: an earlier attempt gave the same child other content.
            GroupSealed: no job can be added to the group any more.
            AccessDenied: the worker may not create jobs for this owner.
        """
        self._check()
        if "request_id" in options:
            raise ValueError("request_id: it is made of the job and `key`")
        if key == "":
            raise ValueError("key: is empty")
        if not isinstance(self._updates, Creator):
            raise TypeError("create_child: a handler in a process needs a client of its own")
        if key is None:
            self._children += 1
        which = f"{self._children}" if key is None else f"key:{key}"
        options.setdefault("group_id", self._job.group_id)
        options["request_id"] = f"{self.id}:{which}"
        return await self._updates.create_child(NewJob(job_type, parameters, **options))

    async def add_asset(
        self,
        asset_type: str,
        *,
        url: str = "",
        storage_path: str = "",
        file_size: int = 0,
        name: str = "",
        sha256: str = "",
        etag: str = "",
    ) -> Asset:
        """Link an asset, exactly once however often the call has to be repeated.

        Args:
            asset_type: 1 to 50 characters, for instance a media type.
            url: where it is; this or `storage_path` is required.
            storage_path: where it is, for programs that share a storage.
            file_size: bytes.
            name: unique within the job. Default: the last part of the path of `url`, or of
                `storage_path`, or `asset_type`.
            sha256: the digest of its content, 64 hexadecimal digits.
            etag: the entity tag that its store gave it.

        Raises:
            InvalidField: a field breaks its rule.
            AssetNameTaken: this attempt linked another asset of this name.
            MessageTooLarge: the job would have too many assets, or too many bytes of them.
            JobledgerError: no try was answered for as long as a lease lasts.
        """
        self._check()
        return await self._updates.link_asset(
            Asset(
                asset_type,
                url=url,
                storage_path=storage_path,
                file_size=file_size,
                name=name,
                sha256=sha256,
                etag=etag,
            )
        )

    async def write(self, data: str | bytes, *, stream: str = "", wait: bool = False) -> None:
        """Write to a stream of the job's output, which its readers see as it comes.

        It is sent within 50 ms, in the order in which it was written, before a report or an asset
        that comes later, and before the end of the job. While the service is away, or takes no more
        for now, 256 KiB wait; then the call does. If the service refuses the output of a stream,
        because it is too much for instance, the worker logs that, and the job goes on.

        Args:
            data: a text, which is sent as UTF-8, or bytes; of any length.
            stream: one of at most 8 of a job: at most 64 letters, digits, `.`, `_` and `-`.
                Default: the stream without a name.
            wait: return when it is committed. It is sent at once.

        Raises:
            JobledgerError: the service refuses the output of the stream; only with `wait`.
            TypeError: `data` is neither a text nor bytes.
            ValueError: no stream can have this name.
        """
        await self._write(checked_stream(stream), "", data, wait)

    def output(self, stream: str = "", *, content_type: str = "") -> JobOutput:
        """Return a stream of the job's output, to write to it again and again.

        That of a plain function is a file: `print(..., file=stream)` writes to it.

        Args:
            stream: its name; see `write`.
            content_type: what it is, if it is new: a media type of at most 128 characters. Default:
                `text/plain; charset=utf-8`.

        Raises:
            ValueError: no stream can have this name, or the content type is none.
        """
        write = partial(self._write, checked_stream(stream), checked_content_type(content_type))
        return JobOutput(write, stream)

    async def run_program(
        self,
        command: Sequence[str],
        *,
        stream: str = "",
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> int:
        """Run a program, and send what it writes to stdout and stderr to the job's output.

        Returns its exit code, or the negative number of the signal that ended it. If the handler
        has to stop, the program gets SIGTERM, and SIGKILL after 10 s; so does what it has started.

        Args:
            command: the program and its arguments. Its stdin is empty.
            stream: where to write; see `write`.
            cwd: the folder that it runs in. Default: that of the worker.
            env: its environment. Default: that of the worker.

        Raises:
            OSError: it cannot be started.
            ValueError: no stream can have this name.
        """
        self._check()
        checked_stream(stream)
        raised = self._run.raised
        stopped = lambda: self._run.raised > raised  # noqa: E731
        async with running(command, stopped, cwd=cwd, env=env) as program:
            async for chunk in program.chunks():
                await self._write(stream, "", chunk)
            return await program.exit_code()

    def put(self, data: bytes, stream: str) -> None:
        output = self._updates.output
        while data := data[output.add(stream, data) :]:
            if self._run.raised or not output.wait_for_room():
                output.drop(stream, len(data))
                return

    async def _write(
        self,
        stream: str,
        content_type: str,
        data: str | bytes,
        wait: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        self._check()
        output, rest = self._updates.output, encoded(data)
        while rest := rest[output.add(stream, rest, content_type) :]:
            await output.room()
            self._check()
        # A handler that does nothing but compute and write lets others run too.
        await asyncio.sleep(0)
        while wait and not self._run.raised and not await output.deliver(stream):
            pass
        self._check()

    def track(
        self, items: Iterable[ItemT] | AsyncIterable[ItemT], *, total: int | None = None
    ) -> AsyncIterator[ItemT]:
        """Iterate over items, and report how many of them are done: `async for item in ...`.

        An item is done when the next one is asked for. At most ten reports a second are made, and
        one at the end. After each item the handler can be cancelled.

        Args:
            items: what the handler works through, async or not.
            total: how many there are. Default: `len(items)`; if they have no length, the reports
                have no percentage, and the message says how many are done.

        Raises:
            TypeError: `items` cannot be iterated over, or `total` is no `int`.
            ValueError: `total` is negative.
        """
        counted = Counted(items, total, asyncio.get_running_loop().time)
        if not isinstance(items, AsyncIterable):
            items = _each(iter(items))
        return self._track(items, counted)

    async def _track(self, items: AsyncIterable[ItemT], counted: "Counted") -> AsyncIterator[ItemT]:
        async for item in items:
            yield item
            if counted.passed():
                await self.progress(*counted.report())
            else:
                await asyncio.sleep(0)  # a cancellation is raised here
                self._check()
        await self.progress(*counted.report())

    def _check(self) -> None:
        if self._run.raised >= Stop.EXPIRED:
            raise asyncio.CancelledError


class Counted:
    """How many items of `track` are done, and when to report that.

    Args:
        items: the items.
        total: how many there are; None: what `len` says, if it says it.
        clock: returns seconds.

    Raises:
        TypeError: `total` is no `int`.
        ValueError: `total` is negative.
    """

    def __init__(self, items: object, total: int | None, clock: Callable[[], float]) -> None:
        if total is None and isinstance(items, Sized):
            total = len(items)
        self._total = None if total is None else count(total, "total", least=0)
        self._clock = clock
        self._done = 0
        self._due = clock()

    def passed(self) -> bool:
        """Count an item; return whether to report."""
        self._done += 1
        now = self._clock()
        if now < self._due:
            return False
        self._due = now + BETWEEN_REPORTS
        return True

    def report(self) -> tuple[float | None, str | None]:
        """Return the arguments of `progress`."""
        if self._total is None:
            return None, f"{self._done} done"
        if self._done >= self._total:
            return MAX_PERCENT, None
        return MAX_PERCENT * self._done / self._total, None


async def _each(items: Iterator[ItemT]) -> AsyncIterator[ItemT]:
    for item in items:
        yield item


def run_state(job: JobFacts) -> RunState:
    """Return how the run of a job's handler stands."""
    return job._run  # noqa: SLF001  # not for handlers


def output_of(job: ClaimedJob) -> Output:
    """Return where a job's output goes."""
    return job._updates.output  # noqa: SLF001  # not for handlers


def log_name(job: Job) -> str:
    """Name a job in the worker's log."""
    return f"job {job.id} ({job.job_type}, attempt {job.attempt})"


def percent_of(progress: float | None) -> int | None:
    """Return whole percent. Raises ValueError for what is not from 0 to 100."""
    if progress is None:
        return None
    if not 0 <= progress <= MAX_PERCENT:
        raise ValueError(f"progress: {progress} is not from 0 to 100")
    return int(progress)


def checkpoint_of(value: JsonObject | None) -> dict[str, Any] | None:
    """Return a copy as the next attempt will get it.

    Raises:
        TypeError: it is no mapping.
        ValueError: it is too large, or JSON cannot hold a part of it.
    """
    struct = to_struct(value, "checkpoint")
    if struct is None:
        return None
    if (size := struct.ByteSize()) > MAX_CHECKPOINT:
        raise ValueError(f"checkpoint: has {size} bytes, at most {MAX_CHECKPOINT} are allowed")
    return from_struct(struct)
