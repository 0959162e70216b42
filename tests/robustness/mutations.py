"""Servers that are broken on purpose, each in one way that one of the promises rules out."""

from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Any

import grpc

from jobledger.v1 import job_pb2, job_service_pb2, worker_service_pb2
from tests.robustness.front import Forward, Mutation, Open

TERMINAL = (
    job_pb2.JOB_STATUS_COMPLETED,
    job_pb2.JOB_STATUS_PARTIAL,
    job_pb2.JOB_STATUS_FAILED,
)

SOME = 30
"""Changes that go by before anything is done to one."""


def starts(change: Any) -> bool:
    """Whether the change is the start of its job: more changes of this job will follow."""
    job = change.job
    return bool(change.transitions) and job.status == job_pb2.JOB_STATUS_PROCESSING


Tell = Callable[[Any], Iterable[Any]]
"""Returns the changes that are sent instead of one."""


class _OfMany(Mutation):
    """Alters the changes that watches of many jobs receive."""

    async def stream(self, rpc: str, request: Any, open_: Open) -> AsyncGenerator[Any, None]:
        tell: Tell = self.telling(request) if rpc == "WatchJobs" else lambda change: [change]
        async with aclosing(super().stream(rpc, request, open_)) as messages:
            async for message in messages:
                if rpc == "WatchJobs" and message.changes:
                    changes = [told for change in message.changes for told in tell(change)]
                    if not changes:
                        continue
                    del message.changes[:]
                    message.changes.extend(changes)
                yield message

    def telling(self, request: Any) -> Tell:
        """Return what a stream does to its changes, one by one."""
        raise NotImplementedError


class DropsOne(_OfMany):
    """One change is not sent."""

    seen = 0

    def telling(self, request: Any) -> Tell:
        def tell(change: Any) -> Iterable[Any]:
            self.seen += starts(change)
            if not self.struck and self.seen > 3 and starts(change):
                self.strikes += 1
            else:
                yield change

        return tell


class DropsEnds(_OfMany):
    """From some time on a watcher of everything receives no terminal states."""

    seen = 0

    def telling(self, request: Any) -> Tell:
        everything = not request.user_id and not request.job_types

        def tell(change: Any) -> Iterable[Any]:
            self.seen += 1
            if everything and self.seen > SOME and change.job.status in TERMINAL:
                self.strikes += 1
            else:
                yield change

        return tell


class DropsDeletions(_OfMany):
    """A watcher of everything receives no deletions."""

    def telling(self, request: Any) -> Tell:
        everything = not request.user_id and not request.job_types

        def tell(change: Any) -> Iterable[Any]:
            if everything and change.deleted:
                self.strikes += 1
            else:
                yield change

        return tell


class RepeatsOne(_OfMany):
    """One change is sent twice."""

    seen = 0

    def telling(self, request: Any) -> Tell:
        def tell(change: Any) -> Iterable[Any]:
            yield change
            self.seen += starts(change)
            if not self.struck and self.seen > 3 and starts(change):
                self.strikes += 1
                yield change

        return tell


class SwapsTwoJobs(_OfMany):
    """One change is sent after changes of other jobs that were committed after it."""

    seen = 0

    def telling(self, request: Any) -> Tell:
        held, passed = None, 0

        def tell(change: Any) -> Iterable[Any]:
            nonlocal held, passed
            self.seen += 1
            if held is None and not self.struck and self.seen > SOME and starts(change):
                held, passed = change, 0
                return
            if held is not None:
                if change.job.id == held.job.id:
                    yield held  # too late: the next one is chosen
                    held = None
                else:
                    passed += 1
            yield change
            if held is not None and passed == 4:
                self.strikes += 1
                yield held
                held = None

        return tell


class SwapsTwoOfAJob(_OfMany):
    """Two changes of one job are sent in the wrong order."""

    seen = 0

    def telling(self, request: Any) -> Tell:
        held = None

        def tell(change: Any) -> Iterable[Any]:
            nonlocal held
            self.seen += 1
            if held is None and not self.struck and self.seen > SOME and starts(change):
                held = change
                return
            yield change
            if held is not None and change.job.id == held.job.id:
                self.strikes += 1
                yield held
                held = None

        return tell


class ForgetsOneOnResume(_OfMany):
    """A resumed stream leaves out the first step that its watcher has missed."""

    def __init__(self) -> None:
        self.told: set[str] = set()

    def telling(self, request: Any) -> Tell:
        before = frozenset(self.told if request.resume_token else ())

        def tell(change: Any) -> Iterable[Any]:
            self.told.add(change.job.id)
            if change.job.id in before and not self.struck and starts(change):
                self.strikes += 1
            else:
                yield change

        return tell


class ResumesTooEarly(Mutation):
    """A stream begins with the message that its token was given out with."""

    def __init__(self) -> None:
        self.before: dict[str, str] = {}

    async def stream(self, rpc: str, request: Any, open_: Open) -> AsyncGenerator[Any, None]:
        many = rpc == "WatchJobs"
        if many and request.resume_token in self.before and not self.struck:
            request.resume_token = self.before[request.resume_token]
            self.strikes += 1
        last = None
        async with aclosing(super().stream(rpc, request, open_)) as messages:
            async for message in messages:
                if many:
                    if last is not None and message.changes:
                        self.before[message.resume_token] = last
                    last = message.resume_token
                yield message


class ChangesAnEndedJob(_OfMany):
    """A change of a job is sent after its terminal state."""

    def telling(self, request: Any) -> Tell:
        def tell(change: Any) -> Iterable[Any]:
            yield change
            if not self.struck and change.job.status in TERMINAL and not change.deleted:
                self.strikes += 1
                again = job_service_pb2.JobChange(job=change.job)
                again.job.version += 1
                yield again

        return tell


class EndsAWatchEarly(Mutation):
    """A watch of one job is over before the job is."""

    async def stream(self, rpc: str, request: Any, open_: Open) -> AsyncGenerator[Any, None]:
        async with aclosing(super().stream(rpc, request, open_)) as messages:
            async for message in messages:
                yield message
                open_job = message.job.status not in TERMINAL
                if rpc == "WatchJob" and open_job and not self.struck:
                    self.strikes += 1
                    return


class SkipsAStepOfOneJob(Mutation):
    """A watch of one job does not receive its start."""

    async def stream(self, rpc: str, request: Any, open_: Open) -> AsyncGenerator[Any, None]:
        async with aclosing(super().stream(rpc, request, open_)) as messages:
            async for message in messages:
                if rpc == "WatchJob" and starts(message) and not self.struck:
                    self.strikes += 1
                    message.ClearField("transitions")
                yield message


class CompletesWithoutAssets(Mutation):
    """A job is completed and its assets are not linked."""

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        if rpc == "MarkCompleted" and request.assets and not self.struck:
            self.strikes += 1
            request.ClearField("assets")
        return await forward(request)


class LinksWithoutCompleting(Mutation):
    """A finish that is answered with an error leaves an asset, and is applied after all."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        if rpc == "MarkCompleted" and request.assets and not self.struck:
            self.strikes += 1
            link = self._channel.unary_unary(
                "/jobledger.v1.WorkerService/CreateAsset",
                worker_service_pb2.CreateAssetRequest.SerializeToString,
            )
            (asset, *_) = request.assets
            await link(
                worker_service_pb2.CreateAssetRequest(
                    job_id=request.job_id,
                    asset_type=asset.asset_type,
                    storage_path=asset.storage_path,
                )
            )
        return await forward(request)


class CreatesTwice(Mutation):
    """One request makes two jobs."""

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        answer = await forward(request)
        if rpc == "CreateJob" and not self.struck:
            self.strikes += 1
            request.ClearField("request_id")
            await forward(request)
        return answer


class ClaimsTwice(Mutation):
    """Two workers are given the same job."""

    given: Any = None

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        if rpc != "ClaimJobs" or self.struck:
            return await forward(request)
        if self.given is not None:
            self.strikes += 1
            given, self.given = self.given, None
            return given
        answer = await forward(request)
        if answer.jobs:
            self.given = answer
        return answer


class ForgetsAReport(Mutation):
    """A report is acknowledged and not kept."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        if rpc != "UpdateProgress":
            return await forward(request)
        last = self.answers.get(request.job_id)
        if last is not None and last.applied and not self.struck:
            self.strikes += 1
            last.job.version += 1
            last.job.progress = request.progress
            last.job.progress_message = request.progress_message
            return last
        self.answers[request.job_id] = answer = await forward(request)
        return answer


class PushesTwice(Mutation):
    """Two streams of Work are given the same job, in the same attempt."""

    def __init__(self) -> None:
        self.given: tuple[object, Any] | None = None

    async def to_worker(self, stream: object, message: Any) -> Any:
        if self.given is not None and self.given[0] is not stream and not self.struck:
            self.strikes += 1
            message.jobs.append(self.given[1])
            self.given = None
        elif message.jobs:
            self.given = stream, message.jobs[0]
        return message


class LosesAnUpdate(Mutation):
    """A report on a stream of Work is acknowledged, and another one is kept."""

    async def from_worker(self, stream: object, message: Any) -> Any:
        for update in message.updates:
            if update.HasField("progress") and not self.struck:
                self.strikes += 1
                update.progress.progress_message = "lost"
        return message


class AppliesAnUpdateTwice(Mutation):
    """A report on a stream of Work is applied again after the next one of its job."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._reports: dict[str, list[Any]] = {}

    async def from_worker(self, stream: object, message: Any) -> Any:
        report = self._channel.unary_unary(
            "/jobledger.v1.WorkerService/UpdateProgress",
            worker_service_pb2.UpdateProgressRequest.SerializeToString,
        )
        for update in message.updates:
            if not update.HasField("progress") or self.struck:
                continue
            reports = self._reports.setdefault(update.job_id, [])
            reports.append(update.progress)
            if len(reports) == 3:  # the second one is answered
                self.strikes += 1
                first, second, _ = reports
                await report(
                    worker_service_pb2.UpdateProgressRequest(
                        job_id=update.job_id,
                        progress=second.progress,
                        progress_message=first.progress_message,
                    )
                )
        return message


class LinksAnAssetTwice(Mutation):
    """An asset of a stream of Work is linked twice."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def from_worker(self, stream: object, message: Any) -> Any:
        link = self._channel.unary_unary(
            "/jobledger.v1.WorkerService/CreateAsset",
            worker_service_pb2.CreateAssetRequest.SerializeToString,
        )
        for update in message.updates:
            if update.HasField("asset") and not self.struck:
                self.strikes += 1
                await link(
                    worker_service_pb2.CreateAssetRequest(
                        job_id=update.job_id,
                        asset_type=update.asset.asset.asset_type,
                        storage_path=update.asset.asset.storage_path,
                    )
                )
        return message


class HidesCancellations(Mutation):
    """A worker receives no cancellations."""

    async def to_worker(self, stream: object, message: Any) -> Any:
        kept = [signal for signal in message.signals if not signal.HasField("cancel_requested")]
        self.strikes += len(message.signals) - len(kept)
        del message.signals[:]
        message.signals.extend(kept)
        return message
