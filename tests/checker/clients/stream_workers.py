"""Workers that do everything over one stream of Work, and open another wherever it breaks."""

import asyncio
import itertools
import random
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from jobledger.v1 import asset_pb2, job_pb2
from jobledger.v1 import worker_service_pb2 as pb
from jobledger.v1.error_reason_pb2 import ErrorReason
from jobledger_server.domain.limits import MAX_PROGRESS
from tests.checker.clients.asking import Replicas, reason_of
from tests.checker.clients.board import TYPES, Board, pause
from tests.checker.clients.output_writers import OutputWriter, update_of
from tests.checker.clients.workers import CHECKPOINTS, WRITTEN, a_delay
from tests.checker.clients.writers import marked
from tests.checker.facts import snapshot
from tests.checker.history import Append, History, Hold, Operation, Outcome
from tests.checker.judge.writing import RETRYABLE

SLOTS = 8

BEAT_SECONDS = 1.0
"""Between two messages of a worker that has nothing to say: they renew its leases."""

SILENT_SECONDS = 3.5
"""After so long without a message, servers send heartbeats, a stream is given up."""

SIGNAL_SECONDS = 3.0
"""How long a worker waits for a signal, if it does."""

MISTAKEN = 0.03
"""How many of the reports follow one that is invalid. That one is refused at once, while updates of
other jobs, sent before it, are still being written."""

REPEATED = frozenset(
    {ErrorReason.ERROR_REASON_UNAVAILABLE, ErrorReason.ERROR_REASON_LIMIT_EXCEEDED}
)
"""Why an update may be refused that is then sent again."""


class WorkerDied(Exception):
    """The worker is gone without a word, as by kill -9, and another one begins."""


@dataclass(slots=True)
class _Update:
    """An update until its result is known. `tries` counts the streams it was sent on."""

    rpc: str
    message: pb.JobUpdate
    mark: str
    assets: tuple[str, ...]
    result: asyncio.Future[pb.UpdateResult]
    append: Append | None = None
    sent: float = 0.0
    tries: int = 0


@dataclass(slots=True)
class _Held:
    job: Any
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the worker received a cancellation or the loss of the lease."""


@dataclass
class StreamWorker:
    """One worker. Each job is worked on by a task of its own, which sends updates and waits."""

    name: str
    replicas: Replicas
    rng: random.Random
    board: Board
    history: History
    deaths: float
    waits: float
    retried: float
    lease: int
    written: float
    pieces: tuple[int, ...]

    def __post_init__(self) -> None:
        self._marks = (f"{self.name}-{number}" for number in itertools.count())
        self._held: dict[str, _Held] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsent: deque[_Update] = deque()
        self._sent: deque[_Update] = deque()
        self._may_write = asyncio.Event()
        self._holds: dict[str, Hold] = {}  # of the stream that is open
        self._frozen_until = 0.0
        self._given_up: set[tuple[str, int, str]] = set()
        """Streams of output of which an append was refused for good, with their job and attempt."""

    async def run(self) -> None:
        """Work until there is nothing more to do."""
        try:
            while not self.board.work.is_set():
                replica = self.replicas.choose()
                try:
                    await self._work_on(replica)
                except grpc.aio.AioRpcError as error:
                    reason = f"Work {error.code().name} {reason_of(error)}".rstrip()
                    self.replicas.refusals[reason] += 1
                    self.replicas.avoid(replica)
                except (TimeoutError, EOFError, asyncio.InvalidStateError):
                    self.replicas.avoid(replica)
                except WorkerDied:
                    self._forget()
                await pause(self.board.work, self.rng.uniform(0.01, 0.1))
        finally:
            self._forget()

    def _forget(self) -> None:
        """Lose all that the worker knows. What became of its updates is unknown."""
        for task in self._tasks:
            task.cancel()
        for update in (*self._sent, *self._unsent):
            if update.tries:
                self._record(update, Outcome.UNKNOWN)
        self._held.clear()
        self._sent.clear()
        self._unsent.clear()

    # --- the stream ------------------------------------------------------------------------------

    async def _work_on(self, replica: int) -> None:
        """Open a stream, with what is held and was not answered, and use it to its end."""
        opened = time.monotonic()
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()
        self._may_write.set()
        holding = [held.job for held in self._held.values()]
        finishing = {
            (update.message.job_id, update.message.attempt)
            for update in self._unsent
            if _ends(update.message)
        }
        self._holds = {
            job.id: Hold(
                self.name,
                job.id,
                job.attempt,
                began=opened,
                resumed=True,
                finishing=(job.id, job.attempt) in finishing,
            )
            for job in holding
        }
        self.history.holds += self._holds.values()
        call = self.replicas.method(replica, "Work")()
        try:
            hello = pb.WorkHello(
                worker_id=self.name,
                job_types=TYPES,
                lease_duration=Duration(seconds=self.lease),
                holding=[pb.HeldJob(job_id=job.id, attempt=job.attempt) for job in holding],
            )
            async with asyncio.timeout(SILENT_SECONDS):
                await call.write(pb.WorkRequest(hello=hello, slots=SLOTS))
            async with asyncio.TaskGroup() as parts:
                parts.create_task(self._read(call, opened))
                parts.create_task(self._write(call))
                parts.create_task(self._until_over())
        except ExceptionGroup as errors:
            # A group that failed has cancelled this task, and leaves that counted before Python
            # 3.13. Before 3.11.3, asyncio.timeout takes it for a cancellation by somebody else.
            while (worker := asyncio.current_task()) and worker.cancelling():
                worker.uncancel()
            raise errors.exceptions[0] from None
        finally:
            call.cancel()
            ended = time.monotonic()
            for hold in self._holds.values():
                hold.end(ended)

    async def _until_over(self) -> None:
        await self.board.work.wait()
        raise EOFError

    async def _write(self, call: Any) -> None:
        while True:
            await self._thaw()
            self._may_write.clear()
            updates = [self._unsent.popleft() for _ in range(len(self._unsent))]
            now = time.monotonic()
            for update in updates:
                update.sent = update.sent or now
                update.tries += 1
                self._note_end(update.message)
            self._sent += updates
            async with asyncio.timeout(SILENT_SECONDS):
                await call.write(pb.WorkRequest(updates=[update.message for update in updates]))
            if self.rng.random() < self.deaths and not self.board.load.is_set():
                self._harm()
            await pause(self._may_write, BEAT_SECONDS)

    def _note_end(self, update: pb.JobUpdate) -> None:
        """Take note of a finish that is sent before the stream's first message came."""
        hold = self._holds.get(update.job_id)
        if hold is None or hold.attempt != update.attempt or not _ends(update):
            return
        if hold.resumed and hold.greeted is None:
            hold.finishing = True

    def _harm(self) -> None:
        """Die, or be frozen as by SIGSTOP, perhaps for longer than a lease."""
        if self.rng.random() < 0.5:
            raise WorkerDied
        self._frozen_until = time.monotonic() + self.rng.uniform(0.5, 6.0)
        for hold in self._holds.values():
            hold.frozen = True

    async def _thaw(self) -> None:
        while (left := self._frozen_until - time.monotonic()) > 0:
            await pause(self.board.work, left)
            if self.board.work.is_set():
                return

    async def _read(self, call: Any, opened: float) -> None:
        greeted = False
        while True:
            await self._thaw()
            async with asyncio.timeout(SILENT_SECONDS):
                message = await call.read()
            if message is grpc.aio.EOF:
                raise EOFError
            now = time.monotonic()
            if not greeted:
                greeted = True
                self.replicas.answered["Work"] += 1
                for hold in self._holds.values():
                    hold.greeted = now
            for result in message.results:
                self._take_result(result)
            for job in message.jobs:
                self._take_job(job, opened, now)
            for signal in message.signals:
                self._take_signal(signal, now)

    def _take_job(self, job: Any, opened: float, now: float) -> None:
        if (before := self._holds.get(job.id)) is not None:
            before.end(now)
        frozen = self._frozen_until > now
        self._holds[job.id] = hold = Hold(self.name, job.id, job.attempt, began=now, frozen=frozen)
        self.history.holds.append(hold)
        self.history.operations.append(
            Operation(
                rpc="Work",
                sent=opened,
                answered=now,
                outcome=Outcome.ACKNOWLEDGED,
                job_id=job.id,
                told=snapshot(job),
                changed=True,
            )
        )
        held = self._held[job.id] = _Held(job)
        task = asyncio.create_task(self._work(held))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take_signal(self, signal: pb.JobSignal, now: float) -> None:
        hold = self._holds.get(signal.job_id)
        if hold is not None and hold.attempt == signal.attempt:
            if signal.HasField("lease_lost"):
                hold.lost = True
                hold.end(now)
            elif hold.asked is None:
                hold.asked = now
        held = self._held.get(signal.job_id)
        if held is not None and held.job.attempt == signal.attempt:
            held.asked.set()

    def _take_result(self, result: pb.UpdateResult) -> None:
        update = self._sent.popleft()
        if self._may_succeed(update, result):
            self._unsent.append(update)
            return
        if result.HasField("error"):
            refused = Outcome.REFUSED if update.tries == 1 else Outcome.UNKNOWN
            self._record(update, refused, result)
        else:
            self._record(update, Outcome.ACKNOWLEDGED, result)
        if not update.result.done():
            update.result.set_result(result)

    def _may_succeed(self, update: _Update, result: pb.UpdateResult) -> bool:
        """Whether an update was refused that is to be sent again."""
        append, error = update.append, result.error
        # Of this update: it will be too much later, too.
        if error.reason in REPEATED and error.metadata["scope"] != "request":
            return True
        if append is None or not result.HasField("error"):
            return False
        stream = append.job_id, append.attempt, append.stream
        if error.reason == ErrorReason.ERROR_REASON_OUTPUT_GAP and stream not in self._given_up:
            return True  # after the one before it, which is sent again first
        self._given_up.add(stream)
        return False

    # --- jobs ------------------------------------------------------------------------------------

    async def _work(self, held: _Held) -> None:
        """Report, perhaps link an asset or wait, and finish or release the job."""
        await self._run(held)
        job = held.job
        if self._held.get(job.id) is held:
            del self._held[job.id]
        hold = self._holds.get(job.id)
        if hold is not None and hold.attempt == job.attempt:
            hold.end(time.monotonic())

    async def _run(self, held: _Held) -> bool:
        job, chance = held.job, self.rng.random()
        writer = None
        if self.rng.random() < self.written:
            writer = OutputWriter(next(self._marks), job, self.rng, self.pieces)
            self.board.written.append(snapshot(job))
        percents = sorted(self.rng.sample(range(1, 100), self.rng.randint(2, 6)))
        waits = self.rng.random() < self.waits
        # Before all reports or after them: the answer to one shows the server a cancellation, too.
        first = waits and self.rng.random() < 0.5
        if first and await self._is_asked(held):
            return await self._finish(job, "MarkFailed")
        for number, percent in enumerate(percents, start=1):
            await pause(held.asked, self.rng.uniform(0.01, 0.08))
            if held.asked.is_set():
                return await self._finish(job, "MarkFailed")
            if self.rng.random() < MISTAKEN:
                more = pb.ProgressUpdate(progress=MAX_PROGRESS + 1)
                await self._update("UpdateProgress", job, "", progress=more)
            mark = next(self._marks)
            progress = pb.ProgressUpdate(
                progress=percent,
                progress_message=mark,
                report_number=number,
                checkpoint=marked(mark) if self.rng.random() < CHECKPOINTS else None,
            )
            reported = self._send("UpdateProgress", job, mark, progress=progress)
            if writer is not None and self.rng.random() < WRITTEN:
                self._append_output(writer, job)
            if not (await reported).applied:
                return False
        if waits and not first and await self._is_asked(held):
            return await self._finish(job, "MarkFailed")
        if writer is not None and self.rng.random() < WRITTEN:
            self._append_output(writer, job)  # before what ends the attempt, in the same message
        if chance < 0.03:
            release = pb.ReleaseUpdate(delay=a_delay(self.rng))
            return await self._update("ReleaseJob", job, "", release=release)
        if self.rng.random() < self.retried:
            mark = next(self._marks)
            failure = pb.FinishUpdate(
                status="JOB_STATUS_FAILED",
                result=marked(mark),
                error=job_pb2.JobError(reason="BUSY", message=mark),
                retryable=True,
                retry_delay=a_delay(self.rng),
            )
            return await self._update(RETRYABLE, job, mark, finish=failure)
        if chance > 0.6:
            mark = next(self._marks)
            asset = asset_pb2.NewAsset(asset_type="image/png", storage_path=mark)
            link = pb.AssetUpdate(asset=asset, request_id=mark)
            if not await self._update("CreateAsset", job, mark, (mark,), asset=link):
                return False
        return await self._finish(job, self.rng.choice(("MarkCompleted", "MarkPartial")))

    async def _is_asked(self, held: _Held) -> bool:
        """Wait for a signal for a while; return whether there was one."""
        await pause(held.asked, SIGNAL_SECONDS)
        return held.asked.is_set()

    async def _finish(self, job: Any, rpc: str) -> bool:
        mark = next(self._marks)
        paths = tuple(f"{mark}/{number}" for number in range(self.rng.randint(0, 3)))
        status = f"JOB_STATUS_{rpc.removeprefix('Mark').upper()}"
        failed = rpc == "MarkFailed"
        finish = pb.FinishUpdate(
            status=status,
            result=marked(mark),
            assets=[asset_pb2.NewAsset(asset_type="image/png", storage_path=p) for p in paths],
            error=job_pb2.JobError(reason="STOPPED", message="stopped", details=marked(mark))
            if failed
            else None,
        )
        done = await self._update(rpc, job, mark, paths, finish=finish)
        if done:
            status = status.removeprefix("JOB_STATUS_")
            self.board.close(replace(snapshot(job), status=status))
        return done

    def _append_output(self, writer: OutputWriter, job: Any) -> None:
        """Send a few pieces of output, and do not wait for what becomes of them."""
        for _ in range(self.rng.randint(1, 4)):
            append = writer.piece()
            output = update_of(append)
            self.history.updates.update(f"output.{field.name}" for field, _ in output.ListFields())
            self._send("AppendOutput", job, "", append=append, output=output)

    async def _update(
        self, rpc: str, job: Any, mark: str, assets: tuple[str, ...] = (), **update: Any
    ) -> bool:
        """Send an update; return whether it took effect."""
        return bool((await self._send(rpc, job, mark, assets, **update)).applied)

    def _send(
        self,
        rpc: str,
        job: Any,
        mark: str,
        assets: tuple[str, ...] = (),
        *,
        append: Append | None = None,
        **update: Any,
    ) -> asyncio.Future[pb.UpdateResult]:
        """Send an update, again where a stream breaks; return the future of its result."""
        message = pb.JobUpdate(job_id=job.id, attempt=job.attempt, **update)
        result = asyncio.get_running_loop().create_future()
        self._unsent.append(_Update(rpc, message, mark, assets, result, append))
        self._may_write.set()
        return result

    def _record(
        self, update: _Update, outcome: Outcome, result: pb.UpdateResult | None = None
    ) -> None:
        if (append := update.append) is not None:
            append.sent, append.answered = update.sent, time.monotonic()
            append.tries, append.outcome = update.tries, outcome
            append.next_offset = 0 if result is None else result.next_offset
            self.history.appends.append(append)
            return
        self.history.operations.append(
            Operation(
                rpc=update.rpc,
                sent=update.sent,
                answered=time.monotonic(),
                outcome=outcome,
                job_id=update.message.job_id,
                result_of="" if result is None else result.job_id,
                mark=update.mark,
                assets=update.assets,
                checkpoint=update.mark if update.message.progress.HasField("checkpoint") else "",
                version=0 if result is None else result.version,
                # A repetition may find what was done before.
                changed=result is not None and result.applied and update.tries == 1,
                attempt=update.message.attempt,
            )
        )


def _ends(update: pb.JobUpdate) -> bool:
    """Return whether the update ends what its worker holds."""
    return update.HasField("finish") or update.HasField("release")
