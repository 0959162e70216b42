"""A channel that writes down what goes over the streams of Work of one worker of the library."""

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import grpc

from jobledger.v1 import job_pb2
from jobledger.v1 import worker_service_pb2 as pb
from tests.checker.clients.board import Board
from tests.checker.clients.observed_output import ObservedOutput
from tests.checker.clients.stream_workers import REPEATED
from tests.checker.clients.update_kinds import NEWS, UpdateKinds
from tests.checker.facts import mark_of, snapshot
from tests.checker.history import History, Operation, Outcome, Snapshot
from tests.checker.judge.writing import RETRYABLE

BROKEN = 0.02
"""How many of the messages break their stream when they were sent: the worker sends their updates
again, and does not know what became of the first ones."""


@dataclass(slots=True)
class _Update:
    """An update, the first time and each time that it is sent again."""

    message: pb.JobUpdate
    news: bool
    sent: float
    tries: int = 0


class ObservedChannel:
    """Passes all calls on to a channel.

    Args:
        channel: Of the real network or a simulated one.
        rng: Decides where a stream breaks.
        board: Is told which jobs have ended.
        history: What is written down goes there.
    """

    def __init__(self, channel: Any, rng: random.Random, board: Board, history: History) -> None:
        self._channel = channel
        self._rng = rng
        self._board = board
        self._history = history
        self._kinds = UpdateKinds()
        self.output = ObservedOutput(history)
        self._jobs: dict[tuple[str, int], Snapshot] = {}
        self._opened = 0.0
        self._sent: deque[_Update] = deque()
        self._unanswered: dict[bytes, _Update] = {}
        """What streams that ended owe an answer, by the whole message."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Callable[..., Any]:
        """Return the method, which is Work: no other has streams in both directions."""
        begin = self._channel.stream_stream(method, *arguments, **options)

        def work(*arguments: Any, **options: Any) -> _Call:
            self._end_stream()
            self._opened = time.monotonic()
            return _Call(begin(*arguments, **options), self)

        return work

    def claimed(self, job_id: str, attempt: int) -> Snapshot:
        """Return a job as the worker was given it."""
        return self._jobs[job_id, attempt]

    def write_down_unanswered(self) -> None:
        """Write down the updates without an answer: no further stream will be opened."""
        self._end_stream()
        for update in self._unanswered.values():
            self._record(update, Outcome.UNKNOWN)
        self._unanswered.clear()

    def send(self, request: pb.WorkRequest) -> bool:
        """Write down what is sent; return whether the stream breaks afterwards."""
        kinds = self._kinds.count(request, self._history.updates)
        now = time.monotonic()
        for message, found in zip(request.updates, kinds, strict=True):
            sent = self._unanswered.pop(_key(message), None)
            update = sent or _Update(message, NEWS in found, now)
            if sent is None:
                self.output.send(message)
            update.tries += 1
            self._sent.append(update)
        return bool(request.updates) and self._rng.random() < BROKEN

    def receive(self, response: pb.WorkResponse) -> None:
        """Write down what is received."""
        for result in response.results:
            update = self._sent.popleft()
            if result.HasField("error"):
                self.output.refuse(update.message)
            if result.error.reason in REPEATED:
                self._unanswered[_key(update.message)] = update
            elif result.HasField("error"):
                refused = Outcome.REFUSED if update.tries == 1 else Outcome.UNKNOWN
                self._record(update, refused, result)
            else:
                self._record(update, Outcome.ACKNOWLEDGED, result)
        for job in response.jobs:
            told = self._jobs[job.id, job.attempt] = snapshot(job)
            self._history.operations.append(
                Operation(
                    rpc="Work",
                    sent=self._opened,
                    answered=time.monotonic(),
                    outcome=Outcome.ACKNOWLEDGED,
                    job_id=job.id,
                    told=told,
                    changed=True,
                )
            )

    def _end_stream(self) -> None:
        self._unanswered.update((_key(update.message), update) for update in self._sent)
        self._sent.clear()

    def _record(
        self, update: _Update, outcome: Outcome, result: pb.UpdateResult | None = None
    ) -> None:
        message = update.message
        if message.HasField("output"):
            self.output.record(message, update.sent, update.tries, outcome, result)
            return
        rpc, mark, assets = _facts(update)
        applied = result is not None and result.applied
        # A report without a message may be one of many with the same content.
        changed = applied and update.tries == 1 and bool(mark or rpc == "ReleaseJob")
        self._history.operations.append(
            Operation(
                rpc=rpc,
                sent=update.sent,
                answered=time.monotonic(),
                outcome=outcome,
                job_id=message.job_id,
                result_of="" if result is None else result.job_id,
                mark=mark,
                assets=assets,
                checkpoint=mark_of(message.progress, "checkpoint"),
                version=0 if result is None else result.version,
                changed=changed,
                attempt=message.attempt,
            )
        )
        if applied and message.HasField("finish"):
            self.output.finish(message)
        if applied and message.HasField("finish") and not message.finish.retryable:
            status = job_pb2.JobStatus.Name(message.finish.status).removeprefix("JOB_STATUS_")
            job = self._jobs[message.job_id, message.attempt]
            self._board.close(replace(job, status=status))


class _Call:
    """A stream of Work."""

    def __init__(self, call: Any, channel: ObservedChannel) -> None:
        self._call = call
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    async def write(self, request: pb.WorkRequest) -> None:
        breaks = self._channel.send(request)
        await self._call.write(request)
        if breaks:
            self._call.cancel()

    async def read(self) -> Any:
        response = await self._call.read()
        if response is not grpc.aio.EOF:
            self._channel.receive(response)
        return response


def _key(update: pb.JobUpdate) -> bytes:
    return update.SerializeToString(deterministic=True)


def _facts(update: _Update) -> tuple[str, str, tuple[str, ...]]:
    """Return the RPC that does the same, the mark, and the assets."""
    message = update.message
    match message.WhichOneof("update"):
        case "progress":
            mark = message.progress.progress_message if update.news else ""
            return "UpdateProgress" if update.news else "RenewLease", mark, ()
        case "asset":
            path = message.asset.asset.storage_path
            return "CreateAsset", path, (path,)
        case "finish":
            finish = message.finish
            status = job_pb2.JobStatus.Name(finish.status).removeprefix("JOB_STATUS_")
            rpc = RETRYABLE if finish.retryable else f"Mark{status.capitalize()}"
            paths = tuple(asset.storage_path for asset in finish.assets)
            return rpc, mark_of(finish, "result"), paths
        case "release":
            return "ReleaseJob", "", ()
        case other:
            raise AssertionError(other)
