"""Wrong answers, given in front of a correct server: each is ruled out by one of the promises."""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any

from jobledger.v1 import job_pb2, job_service_pb2
from tests.checker.front import Forward, Mutation, Open

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
                if rpc == "WatchJobs" and message.changes.changes:
                    changes = [told for change in message.changes.changes for told in tell(change)]
                    if not changes:
                        continue
                    del message.changes.changes[:]
                    message.changes.changes.extend(changes)
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


class HidesWhatWasDeleted(Mutation):
    """A resumed stream shows only the deletion of a job that was deleted in the meantime."""

    async def stream(self, rpc: str, request: Any, open_: Open) -> AsyncGenerator[Any, None]:
        resumed = rpc == "WatchJobs" and request.resume_token
        async with aclosing(super().stream(rpc, request, open_)) as messages:
            async for message in messages:
                if resumed and message.WhichOneof("content") == "changes":
                    gone = {change.job.id for change in message.changes.changes if change.deleted}
                    kept = [
                        change
                        for change in message.changes.changes
                        if change.deleted or change.job.id not in gone
                    ]
                    self.strikes += len(message.changes.changes) - len(kept)
                    del message.changes.changes[:]
                    message.changes.changes.extend(kept)
                yield message


class ForgetsDeletedAssets(_OfMany):
    """A deletion is sent without the assets of its job."""

    def telling(self, request: Any) -> Tell:
        def tell(change: Any) -> Iterable[Any]:
            if change.deleted_assets and not self.struck:
                self.strikes += 1
                del change.deleted_assets[0]
            yield change

        return tell


class AnswersWithoutDeletedAssets(Mutation):
    """The answer to a deletion has not all assets of its job."""

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        answer = await forward(request)
        if rpc == "DeleteJob" and answer.assets:
            self.strikes += 1
            del answer.assets[0]
        return answer


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


class CreatesTwice(Mutation):
    """One request makes two jobs."""

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        answer = await forward(request)
        if rpc == "CreateJob" and not self.struck:
            self.strikes += 1
            request.ClearField("request_id")
            await forward(request)
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
            last.job.progress = request.progress.progress
            last.job.progress_message = request.progress.progress_message
            return last
        self.answers[request.job_id] = answer = await forward(request)
        return answer


class LosesAnUpdate(Mutation):
    """A report on a stream of Work is acknowledged, and another one is kept."""

    async def from_worker(self, stream: object, message: Any) -> Any:
        for update in message.updates:
            if update.HasField("progress") and not self.struck:
                self.strikes += 1
                update.progress.progress_message = "lost"
        return message


class HidesCancellations(Mutation):
    """A worker receives no cancellations."""

    times = 10  # some hit a job that is about to end anyway

    async def to_worker(self, stream: object, message: Any) -> Any:
        kept = [signal for signal in message.signals if not signal.HasField("cancel_requested")]
        self.strikes += len(message.signals) - len(kept)
        del message.signals[:]
        message.signals.extend(kept)
        return message


class LosesAnAttempt(Mutation):
    """An attempt that ended without its job is not listed."""

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        answer = await forward(request)
        if rpc == "ListAttempts" and len(answer.attempts) > 1:
            self.strikes += 1
            del answer.attempts[0]
        return answer


class MistakesAnOutcome(Mutation):
    """An attempt that was released is listed as one that lost its lease."""

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        answer = await forward(request)
        for attempt in answer.attempts if rpc == "ListAttempts" else ():
            if attempt.outcome == job_pb2.ATTEMPT_OUTCOME_RELEASED:
                self.strikes += 1
                attempt.outcome = job_pb2.ATTEMPT_OUTCOME_LEASE_EXPIRED
        return answer


class IgnoresSchedules(Mutation):
    """A job is created without the schedule that its creator asked for, and seems to have it."""

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        if rpc != "CreateJob" or not request.HasField("schedule_time"):
            return await forward(request)
        self.strikes += 1
        asked = job_service_pb2.CreateJobRequest()
        asked.CopyFrom(request)
        asked.ClearField("schedule_time")
        answer = await forward(asked)
        answer.job.schedule_time.CopyFrom(request.schedule_time)
        return answer


class IgnoresPolicies(Mutation):
    """A job is tried more often than its creator asked for."""

    times = 300

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        if rpc == "CreateJob":
            self.strikes += 1
            request.retry_policy.max_attempts = 9
        return await forward(request)


class ForgetsCheckpoints(Mutation):
    """A checkpoint is acknowledged and not kept."""

    times = 100

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        if rpc == "UpdateProgress" and request.progress.HasField("checkpoint"):
            self.strikes += 1
            request.progress.ClearField("checkpoint")
        return await forward(request)


class GivesAnOlderCheckpoint(Mutation):
    """A claimed job comes with the checkpoint of an earlier report than the last."""

    def __init__(self) -> None:
        self.reported: dict[str, list[Any]] = {}

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        answer = await forward(request)
        if rpc == "UpdateProgress" and request.progress.HasField("checkpoint"):
            self.reported.setdefault(request.job_id, []).append(request.progress.checkpoint)
        for job in answer.jobs if rpc == "ClaimJobs" else ():
            known = self.reported.get(job.id, [])
            if job.HasField("checkpoint") and len(known) > 1:
                self.strikes += 1
                job.checkpoint.CopyFrom(known[0])
        return answer


class ForgetsRetries(Mutation):
    """An attempt that failed retryably is listed as one that was released."""

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        answer = await forward(request)
        for attempt in answer.attempts if rpc == "ListAttempts" else ():
            if attempt.outcome == job_pb2.ATTEMPT_OUTCOME_RETRIED:
                self.strikes += 1
                attempt.outcome = job_pb2.ATTEMPT_OUTCOME_RELEASED
        return answer


class RepeatsAJobTwice(Mutation):
    """Two jobs repeat the same one."""

    origin = ""

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        answer = await forward(request)
        if rpc == "RerunJob" and not self.origin:
            self.origin = request.job_id
        if rpc == "RerunJob" and request.job_id != self.origin:
            self.strikes += 1
            answer.job.origin_job_id = self.origin
        return answer


class SaysHeld(Mutation):
    """A job that was released looks as if a worker held it."""

    times = 1

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        answer = await forward(request)
        if rpc == "ReleaseJob":
            self.strikes += 1
            answer.job.held = True
        return answer


class ForgetsCancellations(Mutation):
    """The answer to a cancellation does not say that the job was cancelled."""

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        answer = await forward(request)
        if rpc == "CancelJob" and answer.job.cancelled:
            self.strikes += 1
            answer.job.cancelled = False
        return answer


class SaysCancelled(Mutation):
    """The answer to the end of a job says that it was cancelled."""

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        answer = await forward(request)
        if rpc == "MarkFailed" and answer.job.status == job_pb2.JOB_STATUS_FAILED:
            self.strikes += 1
            answer.job.cancelled = True
        return answer


class SendsParametersWithAReport(Mutation):
    """The answer to a report has the parameters of its job."""

    async def unary(self, rpc: str, request: Any, forward: Forward) -> Any:
        answer = await forward(request)
        if rpc == "UpdateProgress":
            self.strikes += 1
            answer.job.parameters["mark"] = "sent again"
        return answer


class _OfOne(Mutation):
    """Alters the payloads that watches of one job in full receive."""

    async def stream(self, rpc: str, request: Any, open_: Open) -> AsyncGenerator[Any, None]:
        full = rpc == "WatchJob" and request.view != job_pb2.JOB_VIEW_BASIC
        parameters = None
        async with aclosing(super().stream(rpc, request, open_)) as messages:
            async for message in messages:
                if full and message.HasField("job"):
                    first, parameters = parameters is None, parameters or message.job.parameters
                    self.alter(message.job, parameters, first=first)
                yield message

    def alter(self, job: Any, parameters: Any, *, first: bool) -> None:
        """Alter a job of a message; the parameters came with the first."""
        raise NotImplementedError


class ForgetsParameters(_OfOne):
    """The first message has no parameters."""

    def alter(self, job: Any, parameters: Any, *, first: bool) -> None:
        if first and job.HasField("parameters"):
            self.strikes += 1
            job.ClearField("parameters")


class RepeatsParameters(_OfOne):
    """Later messages have the parameters, too."""

    def alter(self, job: Any, parameters: Any, *, first: bool) -> None:
        if not first:
            self.strikes += 1
            job.parameters.CopyFrom(parameters)


class ForgetsTheResult(_OfOne):
    """The last message has no result."""

    def alter(self, job: Any, parameters: Any, *, first: bool) -> None:
        if job.HasField("result"):
            self.strikes += 1
            job.ClearField("result")


BUGS: Mapping[str, type[Mutation]] = {
    name: kind
    for name, kind in globals().items()
    if isinstance(kind, type)
    and issubclass(kind, Mutation)
    and kind is not Mutation
    and not name.startswith("_")
}
