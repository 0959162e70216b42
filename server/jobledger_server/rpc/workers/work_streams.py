"""Work: all of a worker's work over one stream.

A stream has three parts. One reads messages, puts their updates into the ledger's next batch
and renews leases. One claims jobs while there are free slots. One writes whatever is ready:
jobs, results and signals. None of them waits for another one, except that no more is read
and claimed than can be written: MAX_WAITING results, and the jobs of one claim.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any

import grpc

from jobledger.v1 import worker_service_pb2 as pb
from jobledger_server.domain.commands import (
    ChangeStatus,
    Claim,
    LinkAsset,
    Release,
    WorkerCommand,
)
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.job import MICROS_PER_SECOND, Job, JobId
from jobledger_server.domain.limits import MAX_ANSWER_BYTES, MAX_CLAIMED_JOBS
from jobledger_server.domain.state_machine import Decision
from jobledger_server.rpc.encoding import encoded_field
from jobledger_server.rpc.incoming import REQUEST_SECONDS, RequestParser
from jobledger_server.rpc.messages import job_bytes, result_message, signal_message
from jobledger_server.rpc.status import update_error
from jobledger_server.rpc.stream_age import StreamAge
from jobledger_server.rpc.validation import InvalidRequest
from jobledger_server.rpc.workers.work_requests import Hello, Update, WorkMessage, WorkRequests
from jobledger_server.rpc.workers.worker_ledger import WorkerLedger
from jobledger_server.store import StoreError
from jobledger_server.watch.held_jobs import HeldJobs
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.job_watch import Draining
from jobledger_server.watch.wake_up import WakeUp

MAX_WAITING = 1000
"""Updates of one stream without a result that was sent; at this number no more are read."""

RENEWALS_PER_LEASE = 10
"""Leases are renewed by a message if that was not done within this part of the lease. Else a
worker with many jobs and many updates would renew all of the jobs with each update."""

QUIET_PART = 0.5
"""After this part of a lease without a message, a stream is pushed no jobs. It is less than what
the leases of its jobs last, so a worker that stalls is not pushed other jobs."""

CLAIM_RETRY_SECONDS = 1.0
"""Before the next claim after one that failed."""

HEARTBEAT = pb.WorkResponse(heartbeat=True).SerializeToString()

Read = Callable[[], Awaitable[Any]]
"""Returns the next serialized WorkRequest, or grpc.aio.EOF."""

Write = Callable[[bytes], Awaitable[None]]
"""Sends a serialized WorkResponse."""


class WorkStreams:
    """Serves streams of work."""

    def __init__(
        self,
        ledger: WorkerLedger,
        hub: WatchHub,
        requests: WorkRequests,
        parser: RequestParser,
        *,
        heartbeat: float,
        max_age: float,
    ) -> None:
        self._ledger = ledger
        self._hub = hub
        self._requests = requests
        self._parser = parser
        self._heartbeat = heartbeat
        self._max_age = max_age

    async def serve(self, read: Read, write: Write) -> None:
        """Serve one stream, until the client ends it.

        Raises:
            InvalidRequest: A message breaks a rule other than those of an update.
            AccessDenied: The caller may not claim these job types.
            LimitExceeded: A message is too large, or too much is under way.
            StoreUnavailable: The database did not answer when the stream began.
            Draining: The server is shutting down, or the stream reached its maximum age.
        """
        wake_up = WakeUp()
        with self._hub.holding(wake_up.set) as held:
            stream = _Stream(self._ledger, self._hub, held, wake_up)
            reading = asyncio.create_task(self._read(stream, read))
            stopping = asyncio.create_task(self._stop(stream, reading))
            try:
                await stream.write(write, self._heartbeat)
            finally:
                stopping.cancel()
                reading.cancel()
                wake_up.close()
                stream.close()
        if stream.error is not None:
            raise stream.error

    async def _read(self, stream: "_Stream", read: Read) -> None:
        try:
            # Not the maximum age of the stream: a stream without a first message does nothing.
            async with asyncio.timeout(REQUEST_SECONDS):
                data = await read()
            if data is grpc.aio.EOF:
                return
            hello, message = await self._convert(self._requests.first, data)
            await stream.begin(hello, message)
            while (data := await read()) is not grpc.aio.EOF:
                await stream.receive(await self._convert(self._requests.next, data))
        except TimeoutError:
            limit = "seconds to send the first message"
            stream.error = LimitExceeded(limit, REQUEST_SECONDS, scope="caller")
        except Exception as error:  # noqa: BLE001
            stream.error = error
        finally:
            stream.end()

    async def _convert(self, convert: Callable[[bytes], Any], data: bytes) -> Any:
        size = len(data)
        with self._parser.held.admit(size):
            return await self._parser.run(size, partial(convert, data))

    async def _stop(self, stream: "_Stream", reading: "asyncio.Task[None]") -> None:
        """Stop reading when the server drains or the stream reaches its maximum age."""
        try:
            async with asyncio.timeout(StreamAge(self._max_age).remaining()):
                await stream.held.draining.wait()
        except TimeoutError:
            pass
        if not reading.done():
            stream.error = Draining(too_old=not stream.held.draining.is_set())
            reading.cancel()


class _Result:
    """The result of one update: pending until `message` is set, and then only that is kept."""

    __slots__ = ("message",)

    def __init__(self) -> None:
        self.message: bytes | None = None


class _Stream:
    """One stream."""

    def __init__(
        self, ledger: WorkerLedger, hub: WatchHub, held: HeldJobs, wake_up: WakeUp
    ) -> None:
        self.held = held
        self.error: Exception | None = None
        """Why the stream ends, or None if the client ends it."""
        self._ledger = ledger
        self._hub = hub
        self._wake_up = wake_up  # of the writer
        self._loop = asyncio.get_running_loop()
        self._hello: Hello | None = None
        self._greeted = False
        self._ended = False
        self._slots = 0
        self._heard = 0.0  # when the last message came
        self._lease = 0.0  # the shortest of the leases, in seconds
        self._renewed = 0.0
        self._results: deque[_Result] = deque()
        self._has_room = asyncio.Event()
        self._unsent: list[Job] = []  # claimed, and not written yet
        self._sending = False  # whether the message that is being written has them
        self._queried = 0  # the hub's sequence number when jobs were last queried for
        self._may_claim = asyncio.Event()
        self._claiming = asyncio.create_task(self._claim())
        # Jobs with an update that finishes or releases them and has no outcome yet. Until then it
        # is not known whether a change of theirs is a lost lease or the stream's own doing.
        self._finishing: Counter[JobId] = Counter()

    # --- reading ---------------------------------------------------------------------------------

    async def begin(self, hello: Hello, message: WorkMessage) -> None:
        """Take the first message: what the worker still holds is known afterwards."""
        self._ledger.check_job_types(hello.job_types)
        self._lease = hello.lease_duration / MICROS_PER_SECOND
        # Hold, then read the jobs: what is committed in between is offered by the hub.
        for job_id, attempt in hello.holding:
            self.held.add(job_id, attempt)
        self._hello = hello
        self._put(message.updates)
        await self._renew()
        self._greeted = True
        self._take(message)
        await self._room()

    async def receive(self, message: WorkMessage) -> None:
        """Take a message after the first."""
        self._put(message.updates)
        if self._loop.time() - self._renewed >= self._lease / RENEWALS_PER_LEASE:
            try:
                await self._renew()
            except (LimitExceeded, StoreError):
                self._renewed = 0.0  # by the next message
        self._take(message)
        await self._room()

    def end(self) -> None:
        """Record that no message will follow."""
        self._ended = True
        self._wake_up.set()

    def _take(self, message: WorkMessage) -> None:
        self._heard = self._loop.time()
        if message.slots is not None:
            if message.slots < self._slots:
                self._claiming.cancel()  # it waits for more jobs than the worker takes now
                self._claiming = asyncio.create_task(self._claim())
            self._slots = message.slots
        self._may_claim.set()
        self._wake_up.set()

    async def _room(self) -> None:
        while len(self._results) >= MAX_WAITING:
            self._has_room.clear()
            await self._has_room.wait()

    def _put(self, updates: Sequence[Update]) -> None:
        """Put updates into the ledger's next batch, all of them before any other task runs."""
        commands = []
        for job_id, command in updates:
            result = _Result()
            self._results.append(result)
            if isinstance(command, InvalidRequest):
                self._refuse(result, job_id, command)
                continue
            if _finishes(command):
                self._finishing[command.job_id] += 1
            commands.append((command, partial(self._decided, result, command)))
        self._ledger.put(commands)

    def _decided(
        self, result: _Result, command: WorkerCommand, answer: Decision | BaseException
    ) -> None:
        """Take the answer to an update."""
        if _finishes(command):
            self._finishing[command.job_id] -= 1
            if not self._finishing[command.job_id]:
                del self._finishing[command.job_id]
            if isinstance(answer, Decision) and command.attempt is not None:
                self.held.remove(command.job_id, command.attempt)
                self._may_claim.set()
        if isinstance(answer, Decision):
            # Else the signal of a change at another server could come after this result.
            self.held.observe(answer.job)
            linked = answer.assets[0] if isinstance(command, LinkAsset) else None
            self._answer(result, result_message(answer, linked))
        else:
            error = answer if isinstance(answer, Exception) else Draining()
            self._refuse(result, command.job_id, error)

    def _refuse(self, result: _Result, job_id: str, error: Exception) -> None:
        self._answer(result, pb.UpdateResult(job_id=job_id, error=update_error(error)))

    def _answer(self, result: _Result, message: pb.UpdateResult) -> None:
        result.message = message.SerializeToString()
        if result is self._results[0]:
            self._wake_up.set()

    async def _renew(self) -> None:
        """Renew the lease of each held job, and note the jobs whose leases are lost.

        Raises LimitExceeded and StoreError if not all leases could be renewed.
        """
        self._renewed = self._loop.time()
        held = {
            job_id: attempt
            for job_id, attempt in self.held.attempts()
            if job_id not in self._finishing
        }
        for decision in await self._ledger.renew_all(held):
            job = decision.job
            del held[job.id]
            self.held.observe(job)
            if job.lease_duration is not None:
                self._lease = min(self._lease, job.lease_duration / MICROS_PER_SECOND)
        for job_id, attempt in held.items():
            self.held.lose(job_id, attempt)
        self._wake_up.set()

    # --- claiming --------------------------------------------------------------------------------

    async def _claim(self) -> None:
        """Claim jobs whenever some may be pushed, until cancelled."""
        while True:
            await self._may_claim.wait()
            self._may_claim.clear()
            try:
                while self._hello is not None and (wait := self._claim_wait()) > 0:
                    await self._claim_jobs(self._hello, wait)
            except (LimitExceeded, StoreError):
                await asyncio.sleep(CLAIM_RETRY_SECONDS)
                self._may_claim.set()
            except Exception as error:  # noqa: BLE001
                self.error = error
                self.end()
                return

    def _claim_wait(self) -> float:
        """Return how many seconds a claim may wait now; 0 or less if no job may be pushed."""
        if self._unsent or self._ended or self._free() <= 0:
            return 0
        return self._heard + self._lease * QUIET_PART - self._loop.time()

    def _free(self) -> int:
        return self._slots - len(self.held)

    async def _claim_jobs(self, hello: Hello, wait: float) -> None:
        claim = Claim(
            worker_id=hello.worker_id,
            job_types=hello.job_types,
            max_jobs=min(self._free(), MAX_CLAIMED_JOBS),
            lease_duration=hello.lease_duration,
        )
        jobs = await self._ledger.claim(claim, wait, self._note_query)
        if not jobs:
            return
        # Safe because nothing was awaited since the claim: `close` sees every claimed job.
        self._unsent = jobs
        for job in jobs:
            self.held.add(job.id, job.attempt)
        self._wake_up.set()
        # Changes since the claim, before its jobs were held here: a cancellation, for instance.
        missed = self._hub.changes_since(self._queried)
        if missed is None:
            await self._renew()
        else:
            for change in missed:
                self.held.offer(change)

    def _note_query(self) -> None:
        self._queried = self._hub.seq

    # --- writing ---------------------------------------------------------------------------------

    async def write(self, write: Write, heartbeat: float) -> None:
        """Write what is ready until no more is read and every update has its result."""
        while not self._greeted and not self._ended:
            await self._wake_up.wait(heartbeat)
        message = self._next_message() or (HEARTBEAT if self._greeted else b"")
        while message or self._results or not self._ended:
            if message:
                await write(message)
                self._sent()
            elif not await self._wake_up.wait(heartbeat):
                await write(HEARTBEAT)
            message = self._next_message()

    def _sent(self) -> None:
        if self._sending:
            self._sending = False
            self._unsent = []
            self._may_claim.set()

    def _next_message(self) -> bytes:
        """Return what is ready, up to MAX_ANSWER_BYTES, or nothing."""
        parts = []
        if self._unsent and not self._ended:
            self._sending = True
            parts = [encoded_field(pb.WorkResponse, "jobs", job_bytes(j)) for j in self._unsent]
        size = sum(map(len, parts))
        for part in self._results_and_signals():
            parts.append(part)
            size += len(part)
            if size >= MAX_ANSWER_BYTES:
                break
        return b"".join(parts)

    def _results_and_signals(self) -> Iterator[bytes]:
        while self._results and (message := self._results[0].message) is not None:
            self._results.popleft()
            self._has_room.set()
            yield encoded_field(pb.WorkResponse, "results", message)
        while (signal := self.held.next_signal(unless=self._finishing)) is not None:
            self._may_claim.set()  # a lost job leaves its slot
            yield encoded_field(
                pb.WorkResponse, "signals", signal_message(signal).SerializeToString()
            )

    def close(self) -> None:
        """Stop claiming, and release the jobs that could not be sent."""
        self._claiming.cancel()
        if self._unsent:
            self._ledger.release(self._unsent)


def _finishes(command: WorkerCommand) -> bool:
    """Whether the command ends what its worker holds."""
    return isinstance(command, ChangeStatus | Release)
