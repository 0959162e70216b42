"""Work: all of a worker's work over one stream.

A stream has three parts, each in a file of its own: the results of its updates, its leases, and
its slots. One task reads messages, submits their updates and renews leases; one claims jobs
while there are free slots; one writes whatever is ready. None of them waits for another one,
except that no more is read and claimed than can be written.
"""

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import grpc

from jobledger.v1 import worker_service_pb2 as pb
from jobledger_server.admission.caller import Quotas
from jobledger_server.admission.endings import ShuttingDown, StreamTooOld
from jobledger_server.admission.fair_queue import Turns
from jobledger_server.admission.rates import CALL_BYTES, RateLimit
from jobledger_server.domain.commands import ChangeStatus, WorkerCommand
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.limits import MAX_ANSWER_BYTES
from jobledger_server.ledger.ledger import Ledger, Outcome
from jobledger_server.ledger.long_poll import LongPoll
from jobledger_server.rpc.access.permissions import check_job_types
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.encoding import encoded_field
from jobledger_server.rpc.incoming import INLINE_BYTES, RequestParser
from jobledger_server.rpc.messages import job_bytes, result_message, signal_message
from jobledger_server.rpc.status import update_error
from jobledger_server.rpc.stream_age import StreamAge
from jobledger_server.rpc.validation import InvalidRequest
from jobledger_server.rpc.workers.work_leases import Leases, ends
from jobledger_server.rpc.workers.work_requests import Hello, Update, WorkMessage, work_message
from jobledger_server.rpc.workers.work_results import Pending, Results
from jobledger_server.rpc.workers.work_slots import Slots
from jobledger_server.rpc.workers.worker_requests import limited
from jobledger_server.tuning import Tuning
from jobledger_server.watch.held_jobs import HeldJobs
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.wake_up import WakeUp

MESSAGE_SECONDS = 20.0
"""How long the first message may take to arrive, and a later one at least."""

UPDATES_PER_CALL = 10
"""Without a quota of its own, an identity may send this many updates for each call that it may
make: an update costs about a tenth of a call."""

HOLDING_BYTES = 600
"""What a stream needs for each job that its worker says it holds."""

SILENT_LEASES = 2
"""A stream without a message for this many leases ends: its worker is gone, or it sends a message
that never ends."""

HEARTBEAT = pb.WorkResponse(heartbeat=True).SerializeToString()


def updates_per_second(quotas: Quotas) -> float | None:
    """Return how many updates a caller may send, on average."""
    if quotas.updates_per_second is not None or quotas.calls_per_second is None:
        return quotas.updates_per_second
    return quotas.calls_per_second * UPDATES_PER_CALL


@dataclass(frozen=True, slots=True)
class WorkStreams:
    """Serves streams of work."""

    ledger: Ledger
    long_poll: LongPoll
    hub: WatchHub
    url_schemes: Collection[str]
    parser: RequestParser
    heartbeat: float
    max_age: float
    tuning: Tuning = Tuning()
    turns: Turns = field(default_factory=partial(Turns, 1), init=False)
    """Of submitting updates: callers take turns, however many streams one of them has."""
    rate: RateLimit = field(
        default_factory=partial(RateLimit, "updates_per_second", updates_per_second), init=False
    )

    async def serve(self, call: Call) -> None:
        """Serve one stream, until the client ends it.

        Raises:
            InvalidRequest: A message breaks a rule other than those of an update.
            AccessDenied: The caller may not claim these job types.
            LimitExceeded: A message is too large or too late, or too much is under way.
            StoreUnavailable: The database did not answer when the stream began.
            Ending: The server is shutting down, or the stream reached its maximum age.
        """
        wake_up = WakeUp()
        with self.hub.holding(wake_up.set) as held:
            stream = _Stream(self, call, held, wake_up)
            reading = asyncio.create_task(stream.read())
            stopping = asyncio.create_task(stream.stop(reading))
            try:
                await stream.write()
            finally:
                stopping.cancel()
                reading.cancel()
                wake_up.close()
                stream.close()
        if stream.error is not None:
            raise stream.error


class _Stream:
    """One stream: what it reads goes to its parts, and what they have is written."""

    def __init__(self, streams: WorkStreams, call: Call, held: HeldJobs, wake_up: WakeUp) -> None:
        self.error: Exception | None = None
        """Why the stream ends, or None if the client ends it."""
        self._streams = streams
        self._call = call
        self._held = held
        self._wake_up = wake_up  # of the writer
        tuning = streams.tuning
        self._results = Results(wake_up.set, streams.parser.held, call.caller, tuning)
        self._leases = Leases(streams.ledger, held, call.caller, streams.rate, tuning)
        self._slots = Slots(
            streams.long_poll,
            streams.hub,
            held,
            self._leases,
            call.caller,
            ready=wake_up.set,
            failed=self._end,
            tuning=tuning,
        )
        self._greeted = False
        self._ended = False

    # --- reading ---------------------------------------------------------------------------------

    async def read(self) -> None:
        """Read messages until the client ends the stream, or an error does."""
        try:
            message = await self._next(MESSAGE_SECONDS, first=True)
            if message is None:
                return
            claim, holding = cast("Hello", message.hello)
            check_job_types(self._call.caller, claim.job_types)
            size = HOLDING_BYTES * len(holding)
            with (
                self._streams.parser.held.admit(self._call.caller, size),
                self._streams.long_poll.pollers.asking(claim.job_types),
            ):
                await self._leases.hold(claim.lease_duration, holding)
                self._greeted = True
                del holding  # a stream may last long
                while message is not None:
                    await self._submit(message.updates)
                    await self._leases.renew_if_due()
                    self._slots.set(claim, message.slots)
                    self._wake_up.set()
                    del message  # the next one may take long
                    await self._results.room()
                    silence = max(MESSAGE_SECONDS, SILENT_LEASES * self._leases.seconds)
                    message = await self._next(silence)
        except Exception as error:  # noqa: BLE001
            self.error = error
        finally:
            self._end()

    async def _next(self, seconds: float, *, first: bool = False) -> WorkMessage | None:
        """Read and convert a message, and expect its updates. Return None at the end.

        It must arrive within these seconds.
        """
        streams, caller = self._streams, self._call.caller
        try:
            async with asyncio.timeout(seconds):
                data = await self._call.read()
        except TimeoutError:
            raise LimitExceeded("message_seconds", seconds, scope="caller") from None
        if data is grpc.aio.EOF:
            return None
        size = len(data)
        with streams.parser.held.admit(caller, size if size > INLINE_BYTES else 0):
            # One message of a caller after the other, or all its streams would go on together.
            async with streams.rate.alone(caller):
                if (wait := streams.rate.wait_of(caller)) > 0:
                    await asyncio.sleep(wait)
                convert = partial(work_message, data, streams.url_schemes, first=first)
                message = await streams.parser.run(caller, size, convert)
                streams.rate.add(caller, max(1, len(message.updates), size // CALL_BYTES))
        # Before anything is awaited.
        for _, command in message.updates:
            if not isinstance(command, InvalidRequest):
                self._leases.submitted(command)
        return message

    async def _submit(self, updates: Sequence[Update]) -> None:
        """Submit updates in order, a few at a time, in turn with other callers."""
        streams, caller = self._streams, self._call.caller
        for part in _parts(updates, streams.tuning.updates_per_turn):
            async with streams.turns.turn(caller):
                self._put(part)
                if len(part) < len(updates):
                    await asyncio.sleep(0)
            await self._results.room()

    def _put(self, updates: Sequence[Update]) -> None:
        pending: list[tuple[Pending, WorkerCommand]] = []
        for job_id, command in updates:
            result = self._results.expect(_weight(command))
            if isinstance(command, InvalidRequest):
                self._refuse(result, job_id, command)
                continue
            try:
                pending.append((result, limited(command, self._call.caller)))
            except InvalidRequest as refusal:
                self._decided(result, command, refusal)
        if pending:
            submitted = self._streams.ledger.submit(
                [each for _, each in pending], self._call.caller
            )
            submitted.add_done_callback(partial(self._all_decided, pending))

    def _all_decided(
        self,
        pending: Sequence[tuple[Pending, WorkerCommand]],
        submitted: "asyncio.Future[Sequence[Outcome]]",
    ) -> None:
        """Take the outcomes of updates; if the ledger failed, there are none."""
        failed = submitted.cancelled() or submitted.exception() is not None
        outcomes = [ShuttingDown()] * len(pending) if failed else submitted.result()
        for (result, command), outcome in zip(pending, outcomes, strict=True):
            self._decided(result, command, outcome)

    def _decided(self, result: Pending, command: WorkerCommand, outcome: Outcome) -> None:
        if isinstance(outcome, Exception):
            self._leases.decided(command, outcome)
            self._refuse(result, command.job_id, outcome)
            return
        (decision,) = outcome
        self._leases.decided(command, decision)
        if ends(command):
            self._slots.changed()
        self._results.settle(result, result_message(decision))

    def _refuse(self, result: Pending, job_id: str, error: Exception) -> None:
        self._results.settle(result, pb.UpdateResult(job_id=job_id, error=update_error(error)))

    def _end(self, error: Exception | None = None) -> None:
        """Take note that nothing more is read."""
        self.error = error or self.error
        self._ended = True
        self._slots.stop()
        self._wake_up.set()

    async def stop(self, reading: "asyncio.Task[None]") -> None:
        """Stop reading when the server drains or the stream reaches its maximum age."""
        with suppress(TimeoutError):
            async with asyncio.timeout(StreamAge(self._streams.max_age).remaining()):
                await self._held.ended.wait()
        if not reading.done():
            self.error = self._held.ending or StreamTooOld()
            reading.cancel()

    def close(self) -> None:
        """Release the jobs that could not be sent, and count no results for the caller."""
        self._slots.close()
        self._results.close()

    # --- writing ---------------------------------------------------------------------------------

    async def write(self) -> None:
        """Write what is ready until no more is read and every update has its result."""
        loop, heartbeat = asyncio.get_running_loop(), self._streams.heartbeat
        while not self._greeted and not self._ended:
            await self._wake_up.wait(heartbeat)
        message = self._next_message() or (HEARTBEAT if self._greeted else b"")
        due = loop.time() + heartbeat
        while message or self._results or not self._ended:
            if message:
                await self._call.write(message)
                self._slots.sent()
                due = loop.time() + heartbeat
            else:
                # The client's messages wake the writer too, and need no answer.
                await self._wake_up.wait(due - loop.time())
            message = self._next_message()
            if not message and loop.time() >= due:
                message = HEARTBEAT

    def _next_message(self) -> bytes:
        """Return what is ready, up to MAX_ANSWER_BYTES, or nothing."""
        starts = () if self._ended else self._slots.take()
        parts = [
            encoded_field(pb.WorkResponse, "jobs", job_bytes(start.job, start.payloads))
            for start in starts
        ]
        size = sum(map(len, parts))
        for part in self._results_and_signals():
            parts.append(part)
            size += len(part)
            if size >= MAX_ANSWER_BYTES:
                break
        return b"".join(parts)

    def _results_and_signals(self) -> Iterator[bytes]:
        for message in self._results.take():
            yield encoded_field(pb.WorkResponse, "results", message)
        # The first message is to have all that `hold` has found, and not what came before that.
        while self._greeted and (signal := self._leases.next_signal()) is not None:
            self._slots.changed()  # a lost job leaves its slot
            yield encoded_field(
                pb.WorkResponse, "signals", signal_message(signal).SerializeToString()
            )


def _parts(updates: Sequence[Update], most: int) -> Iterator[Sequence[Update]]:
    """Cut updates into parts of at most so many updates and assets, or one larger update."""
    begin = weight = 0
    for position, (_, command) in enumerate(updates):
        more = _weight(command)
        if position > begin and weight + more > most:
            yield updates[begin:position]
            begin, weight = position, 0
        weight += more
    if updates:
        yield updates[begin:]


def _weight(command: WorkerCommand | InvalidRequest) -> int:
    return 1 + len(command.assets) if isinstance(command, ChangeStatus) else 1
