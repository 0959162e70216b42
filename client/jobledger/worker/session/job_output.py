"""The output of one job, from what its handler writes to what the service has stored.

What is written waits for a moment, so that many small writes are one append. Of each stream one
append is under way, and is sent again as it was, with its number, until it is answered: so it is
stored once.
"""

import asyncio
import contextvars
import logging
import math
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from jobledger.core.models import Job
from jobledger.core.retry import Backoff, is_transient, is_unreachable, wait_at_most
from jobledger.errors import JobledgerError, MessageTooLarge, OutputGap
from jobledger.worker.handlers.threads import THREADS
from jobledger.worker.job import Stop, log_name
from jobledger.worker.session.lease import GONE, Lease
from jobledger.worker.session.messages import output_update
from jobledger.worker.session.work_stream import WorkStream

LINGER: Final = 0.05
"""Seconds that output waits for more."""

FLUSH: Final = 16 * 1024
"""Bytes of a job that are sent at once."""

MAX_APPEND: Final = 64 * 1024
"""Bytes of one append."""

MAX_STREAMS: Final = 8
"""Of a job."""

MAX_JOB_WAITING: Final = 256 * 1024
"""Bytes of a job that wait. Then its handler does."""

MAX_WORKER_WAITING: Final = 16 * 1024 * 1024
"""Bytes of all jobs of a worker that wait."""

WAIT: Final = 1.0
"""Seconds that one wait for room, or for an answer, lasts."""

_logger = logging.getLogger("jobledger.worker")


class OutputRoom:
    """The room for output that waits, of all jobs of a worker. Its methods need its lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.freed = asyncio.Event()
        """Set when there is more room; in the event loop."""
        self._left = MAX_WORKER_WAITING

    def has_some(self) -> bool:
        """Whether there is room for a byte."""
        return self._left > 0

    def take(self, size: int) -> int:
        """Take room for at most so many bytes; return for how many."""
        taken = max(0, min(size, self._left))
        self._left -= taken
        return taken

    def give_back(self, size: int) -> None:
        """Give room back; less than nothing: take it though there is none."""
        self._left += size


@dataclass(slots=True, eq=False)
class _Stream:
    name: str
    content_type: str
    # What has no answer yet.
    waiting: bytearray = field(default_factory=bytearray)
    # Of the append that was sent last.
    number: int = 0
    # Bytes, from the beginning of the attempt.
    added: int = 0
    settled: int = 0
    # Since the last note of it in the stream.
    dropped: int = 0
    refusal: JobledgerError | None = None


class JobOutput:
    """Sends the output of one job. `add`, `drop` and `wait_for_room` may be called in any thread.

    Args:
        job: as it was claimed.
        lease: of the job.
        stream: carries the updates.
        room: of the worker.
        spawn: starts a task. There is one while there is output to send.
        on_lost: called if the job is no longer this worker's.
    """

    def __init__(
        self,
        job: Job,
        lease: Lease,
        stream: WorkStream,
        room: OutputRoom,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"],
        on_lost: Callable[[Stop, str], None],
    ) -> None:
        self._job = job
        self._lease = lease
        self._stream = stream
        self._room = room
        self._spawn = spawn
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._threads = THREADS.get()
        # Not that of the handler: what is logged while output is sent is no output of the job.
        self._context = contextvars.copy_context()
        self._streams: dict[str, _Stream] = {}
        # Stands for all streams that are too many.
        self._excess: _Stream | None = None
        self._waiting = 0
        self._is_sending = False
        self._closed = False
        self._sender: asyncio.Task[None] | None = None
        self._due = asyncio.Event()
        self._flushing = False
        self._settled = asyncio.Event()
        self._give_up = math.inf  # by the lease's clock

    # --- for the handler ----------------------------------------------------------------------

    def add(self, stream: str, data: bytes, content_type: str = "") -> int:
        """Take as much as there is room for; return how many bytes.

        What comes after a refusal of the stream, or after the end of the job, is taken and
        forgotten.
        """
        with self._room.lock:
            found = self._of(stream, content_type)
            if self._closed or found.refusal is not None:
                return len(data)
            size = self._room.take(max(0, min(len(data), MAX_JOB_WAITING - self._waiting)))
            if not size:
                return 0
            before = self._waiting
            if found.dropped:
                note = f"[{found.dropped} bytes are missing here: too much was written]\n".encode()
                found.dropped = 0
                self._room.give_back(-len(note))
                self._keep(found, note)
            self._keep(found, data[:size])
            begins, self._is_sending = not self._is_sending, True
            is_much = before < FLUSH <= self._waiting
        if begins or is_much:
            self._soon(self._begin if begins else self._due.set)
        return size

    def drop(self, stream: str, size: int) -> None:
        """Take note that so many bytes are not sent; the stream says so where they are missing."""
        with self._room.lock:
            self._of(stream).dropped += size

    async def room(self) -> None:
        """Wait a moment for room."""
        self._room.freed.clear()
        if not self._has_room():
            await wait_at_most(WAIT, self._room.freed)

    def wait_for_room(self) -> bool:
        """Wait a moment for room, in a thread; return False at once in that of the event loop."""
        if not self._threads.may_wait():
            return False
        self._threads.wait(self.room(), self._loop)
        return True

    async def deliver(self, stream: str) -> bool:
        """Send at once what was written; wait a moment; return whether all of it is committed.

        Raises:
            JobledgerError: the service refuses the stream.
        """
        found = self._of(stream)
        done = await self._wait({found: found.added}, WAIT)
        if found.refusal is not None:
            raise found.refusal
        return done

    # --- for the session ----------------------------------------------------------------------

    async def settle(self, seconds: float) -> bool:
        """Send at once what was written until now; return whether it was answered in time."""
        marks = {each: each.added for each in list(self._streams.values()) if each.waiting}
        return not marks or await self._wait(marks, seconds)

    async def end(self, seconds: float) -> None:
        """Send the rest. Nothing can be written any more.

        Args:
            seconds: how long the service may refuse it for now. While it is away, this waits.
        """
        self._give_up = self._lease.clock() + seconds
        while self._waiting and not self._closed:
            await self.settle(WAIT)
        self.close()

    def close(self) -> None:
        """Forget what was not sent. What is written from now on is forgotten, too."""
        with self._room.lock:
            self._closed = True
            for stream in self._streams.values():
                self._forget(stream, len(stream.waiting))
        if self._sender is not None and self._sender is not asyncio.current_task():
            self._sender.cancel()
        self._notify()

    async def _wait(self, marks: "dict[_Stream, int]", seconds: float) -> bool:
        """Wait until streams are settled up to these places; return whether they are."""
        self._flushing = True
        self._due.set()
        end = self._lease.clock() + seconds
        try:
            while not (done := all(each.settled >= mark for each, mark in marks.items())):
                left = end - self._lease.clock()
                if left <= 0 or self._closed:
                    break
                self._settled.clear()
                await wait_at_most(left, self._settled)
        finally:
            self._flushing = False
        return done

    # --- what waits ---------------------------------------------------------------------------

    def _of(self, name: str, content_type: str = "") -> _Stream:
        found = self._streams.get(name)
        if found is None and len(self._streams) < MAX_STREAMS:
            found = self._streams[name] = _Stream(name, content_type)
        if found is not None:
            return found
        if self._excess is None:
            text = f"a job has at most {MAX_STREAMS} streams of output"
            refusal = MessageTooLarge(text, code=grpc.StatusCode.RESOURCE_EXHAUSTED)
            self._excess = _Stream(name, content_type, refusal=refusal)
            self._soon(self._log_refusal, name, refusal)
        return self._excess

    def _keep(self, stream: _Stream, data: bytes) -> None:
        stream.waiting += data
        stream.added += len(data)
        self._waiting += len(data)

    def _forget(self, stream: _Stream, size: int) -> None:
        del stream.waiting[:size]
        stream.settled += size
        self._waiting -= size
        self._room.give_back(size)

    def _has_room(self) -> bool:
        with self._room.lock:
            return self._closed or (self._waiting < MAX_JOB_WAITING and self._room.has_some())

    def _soon(self, call: Callable[..., object], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call, *arguments, context=self._context)

    def _notify(self) -> None:
        self._settled.set()
        self._room.freed.set()

    # --- sending ------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self._closed:
            self._sender = self._spawn(self._send())

    async def _send(self) -> None:
        try:
            while await self._is_due():
                streams = [each for each in list(self._streams.values()) if each.waiting]
                await asyncio.gather(*map(self._append, streams))
        except Exception:
            _logger.exception("%s: a bug", log_name(self._job))
            self.close()

    async def _is_due(self) -> bool:
        """Wait until something is to be sent; return False if nothing waits."""
        self._due.clear()
        with self._room.lock:
            self._is_sending = self._waiting > 0
        if self._is_sending and self._waiting < FLUSH and not self._flushing:
            await wait_at_most(LINGER, self._due)
        return self._is_sending

    async def _append(self, stream: _Stream) -> None:
        """Send the next append of a stream until it is answered for good."""
        with self._room.lock:
            data = bytes(stream.waiting[:MAX_APPEND])
        stream.number += 1
        refusal = await self._refusal(stream, data)
        if self._closed:
            return
        with self._room.lock:
            stream.refusal = refusal
            self._forget(stream, len(data) if refusal is None else len(stream.waiting))
        self._notify()

    async def _refusal(self, stream: _Stream, data: bytes) -> JobledgerError | None:
        """Send an append until it is stored, or refused for good."""
        backoff = Backoff(self._lease.longest_pause)
        while True:
            try:
                await self._stream.send(
                    output_update(self._job, stream.name, data, stream.content_type, stream.number)
                )
            except GONE as error:
                self._on_lost(Stop.LOST, str(error))
                self.close()
                return error
            except OutputGap as error:
                # The database was restored, and has no more of the stream than that.
                stream.number, pause = error.number or stream.number, backoff.pause(error)
            except JobledgerError as error:
                pause = backoff.pause(error)
                is_late = self._lease.clock() + pause > self._give_up
                if not is_transient(error) or (is_late and not is_unreachable(error)):
                    self._log_refusal(stream.name, error)
                    return error
            else:
                return None
            await asyncio.sleep(pause)

    def _log_refusal(self, stream: str, error: JobledgerError) -> None:
        text = "%s: its output in stream %r is not stored from here on: %s"
        _logger.warning(text, log_name(self._job), stream, error)
