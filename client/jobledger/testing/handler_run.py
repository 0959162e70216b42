"""Runs a handler as a worker does, without a server, and records what it reports."""

import asyncio
import dataclasses
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict, Unpack

from jobledger.core.conversion import JsonObject, Seconds, from_struct, to_struct
from jobledger.core.models import Asset, Job, JobError, JobStatus, RetryPolicy
from jobledger.core.new_job import NewJob
from jobledger.core.options import check_names
from jobledger.core.tasks import Task
from jobledger.core.typed_values import Typed, is_typed, to_json
from jobledger.worker.handlers.handler import Function, Middleware, OnCancel, make_handler
from jobledger.worker.handlers.job_run import JobRun
from jobledger.worker.job import checkpoint_of
from jobledger.worker.outcomes import Outcome, Release
from jobledger.worker.session.reports import Report


@dataclass(frozen=True, slots=True)
class HandlerRun:
    """What a handler did with a job."""

    outcome: Outcome
    """What the worker tells the service: how the job finishes, a Failed with `retryable` and
    `retry_after` if it may have another attempt, or Release(), also if `cancelled`."""
    cancelled: bool
    """Whether the job is FAILED / CANCELLED, as the service makes a released job whose cancellation
    was requested."""
    reports: list[Report]
    """Each `job.progress(...)`, with `progress`, `message` and `checkpoint`; None means unchanged.
    """
    assets: list[Asset]
    """What was linked, with `job.add_asset(...)` and with the outcome."""
    children: list[NewJob]
    """What was created, with `job.create_child(...)`."""
    output: Mapping[str, bytes]
    """What was written, by stream: `run.output[""]` with `job.write(...)`."""
    raised: BaseException | None
    """What the handler raised, if that is the outcome."""

    @property
    def checkpoint(self) -> dict[str, Any] | None:
        """What the next attempt gets as its checkpoint, if this one has reported one."""
        reported = [each.checkpoint for each in self.reports if each.checkpoint is not None]
        return reported[-1] if reported else None


class RunOptions(TypedDict, total=False):
    """Keyword arguments of `run_handler`: the job and the worker around the handler."""

    task: Task[Any, Any]
    """The task that the function is a handler of. Default: none."""
    job_type: str
    """Default: that of the task, or the function's name."""
    labels: Mapping[str, str]
    """The job's. Default: none."""
    user_id: str
    """The job's owner. Default: `ada`."""
    attempt: int
    """Default: 1."""
    retry_policy: RetryPolicy
    """The job's. Default: three attempts."""
    last_error: JobError
    """Why the attempt before this one ended. Default: none."""
    checkpoint: JsonObject
    """What an earlier attempt has reported. Default: none."""
    state: Any
    """What the worker's lifespan would yield."""
    middleware: Sequence[Middleware]
    """The worker's middleware."""
    timeout: Seconds | None
    """As in `worker.handler`."""
    retry_on: type[Exception] | Iterable[type[Exception]]
    """As in `worker.handler`."""
    on_cancel: OnCancel
    """As in `worker.handler`."""
    cancel_after: int
    """Request cancellation of the job at this call of `job.progress()`: 1 is the first."""
    cancel_reason: str
    """Why it is requested."""


def run_handler(
    function: Function, parameters: JsonObject | Typed | None = None, **options: Unpack[RunOptions]
) -> HandlerRun:
    """Run a handler, async or plain, for one job.

    Args:
        function: the handler.
        parameters: the job's: a JSON object, or a dataclass, msgspec.Struct or pydantic model.
        **options: see RunOptions.

    Raises:
        RuntimeError: an event loop runs in this thread: await `run_handler_async` there.
        TypeError: the function cannot be a handler, or `parameters` is no mapping.
        ValueError: JSON cannot hold the parameters.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass  # none does; what is raised below has nothing to do with that
    else:
        raise RuntimeError(
            "run_handler: an event loop runs in this thread; await run_handler_async"
        )
    return asyncio.run(run_handler_async(function, parameters, **options))


async def run_handler_async(
    function: Function, parameters: JsonObject | Typed | None = None, **options: Unpack[RunOptions]
) -> HandlerRun:
    """Run a handler, async or plain, for one job; see `run_handler`."""
    check_names(options, RunOptions)
    job = _job(function, parameters, options)
    names = "on_cancel", "timeout", "retry_on", "middleware", "task"
    given: Any = {name: value for name, value in options.items() if name in names}
    handler = make_handler(function, **given)
    run = JobRun(job, handler, options.get("state"))
    recorder = _Recorder(run, options.get("cancel_after"), options.get("cancel_reason", ""))
    await run.run(recorder)
    outcome = recorder.outcome
    is_released = isinstance(outcome, Release)
    return HandlerRun(
        outcome,
        cancelled=is_released and recorder.cancelled,
        reports=recorder.reports,
        assets=[*recorder.assets, *([] if isinstance(outcome, Release) else outcome.assets)],
        children=recorder.children,
        output={stream: bytes(data) for stream, data in recorder.output.streams.items()},
        raised=run.raised,
    )


def _job(function: Function, parameters: JsonObject | Typed | None, options: RunOptions) -> Job:
    # What a worker would see of them: the types of JSON.
    given: Any = to_json(parameters, "parameters") if is_typed(type(parameters)) else parameters
    struct = to_struct(given or {}, "parameters")
    assert struct is not None  # noqa: S101
    task = options.get("task")
    name = getattr(function, "__name__", "job") if task is None else task.job_type
    now = datetime.now(UTC)
    return Job(
        id=str(uuid.uuid4()),
        user_id=options.get("user_id", "ada"),
        job_type=options.get("job_type", str(name)),
        status=JobStatus.PROCESSING,
        parameters=from_struct(struct),
        labels=dict(options.get("labels", {})),
        attempt=options.get("attempt", 1),
        retry_policy=options.get("retry_policy", RetryPolicy()),
        last_error=options.get("last_error"),
        checkpoint=checkpoint_of(options.get("checkpoint")),
        create_time=now,
        start_time=now,
        update_time=now,
    )


class RecordedOutput:
    """Has room for everything."""

    def __init__(self) -> None:
        self.streams: dict[str, bytearray] = {}

    def add(self, stream: str, data: bytes, content_type: str = "") -> int:  # noqa: ARG002
        self.streams.setdefault(stream, bytearray()).extend(data)
        return len(data)

    def drop(self, stream: str, size: int) -> None:
        raise NotImplementedError

    async def room(self) -> None:
        raise NotImplementedError

    def wait_for_room(self) -> bool:
        raise NotImplementedError

    async def deliver(self, stream: str) -> bool:  # noqa: ARG002
        return True


class _Recorder:
    """Replaces a worker's session with the service."""

    outcome: Outcome

    def __init__(self, run: JobRun, cancel_after: int | None, cancel_reason: str) -> None:
        if cancel_after is not None and cancel_after < 1:
            raise ValueError(f"cancel_after: {cancel_after} is less than 1")
        self.reports: list[Report] = []
        self.assets: list[Asset] = []
        self.children: list[NewJob] = []
        self.output = RecordedOutput()
        self._run = run
        self._cancel_after = cancel_after
        self._cancel_reason = cancel_reason
        self._calls = 0

    @property
    def cancelled(self) -> bool:
        return self._cancel_after is not None and self._calls >= self._cancel_after

    def report(
        self, progress: int | None, message: str | None, checkpoint: dict[str, Any] | None
    ) -> None:
        self.reports.append(Report(progress, message, checkpoint))
        self._called()

    async def ask(self) -> None:
        self._called()
        await asyncio.sleep(0)

    async def deliver(self) -> bool:
        return True

    async def link_asset(self, asset: Asset) -> Asset:
        asset = dataclasses.replace(asset, id=str(uuid.uuid4()), job_id=self._run.job.id)
        self.assets.append(asset)
        return asset

    async def create_child(self, job: NewJob) -> Job:
        request = job.to_proto(self._run.job.user_id)
        self.children.append(job)
        return Job(
            id=str(uuid.uuid4()),
            user_id=request.user_id,
            job_type=request.job_type,
            parameters=None,
            labels=dict(request.labels),
            request_id=request.request_id,
            group_id=request.group_id,
        )

    async def renew_lease(self) -> None:
        await asyncio.Event().wait()

    async def send_outcome(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def _called(self) -> None:
        self._calls += 1
        if self._calls == self._cancel_after:
            self._run.cancel(self._cancel_reason)
