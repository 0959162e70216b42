"""One stream of Work after the other: what a worker sends, and what it receives.

The first message of a stream has `hello`, and the stream is open once that is answered. Its writer
puts all that waits into each message, the first one included: while one is written, the next one
fills. Its reader gives each result to the update that it answers; they come in the order of the
updates. When the stream ends, the updates without a result wait, in their order, for the next
stream: all of them are safe to repeat.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, cast

import grpc

from jobledger.core.retry import wait_at_most
from jobledger.core.work_opener import WorkCall
from jobledger.errors import (
    DeadlineExceeded,
    InternalError,
    JobledgerError,
    MessageTooLarge,
    Unavailable,
    from_rpc_error,
    from_update_error,
)
from jobledger.v1.worker_service_pb2 import (
    JobUpdate,
    UpdateResult,
    WorkHello,
    WorkRequest,
    WorkResponse,
)

MAX_WAITING: Final = 1000
"""Updates that are sent without a result; the service reads no more either, and takes as many in a
message."""

MAX_BYTES: Final = 1024 * 1024 - 64
"""Of a message, besides `slots` and the length of `hello`. The service takes 1 MiB."""

HEARTBEAT: Final = 0.3
"""A part of the lease: messages are sent at least this often. The service expects one a third."""

ANSWER_TIMEOUT: Final = 0.2
MAX_ANSWER_TIMEOUT: Final = 10.0
"""Of the lease, and in seconds: a stream that owes an answer and is silent for so long is replaced.
A frozen server must not use up the lease."""

IDLE_TIMEOUT: Final = 45.0
"""Seconds that any stream may be silent: three heartbeats of the service."""


@dataclass(slots=True, eq=False)
class _Update:
    message: JobUpdate
    size: int
    # None: nobody waits for the result.
    result: asyncio.Future[UpdateResult] | None = None
    sent: float = 0.0


class WorkStream:
    """The updates of one worker, over any number of streams.

    Args:
        open_call: opens a stream.
        lease: seconds.
    """

    def __init__(self, open_call: Callable[[], Awaitable[WorkCall]], lease: float) -> None:
        self._open_call = open_call
        self._clock = asyncio.get_running_loop().time
        self._heartbeat = lease * HEARTBEAT
        self._answer_timeout = min(lease * ANSWER_TIMEOUT, MAX_ANSWER_TIMEOUT)
        self._unsent: deque[_Update] = deque()
        self._sent: deque[_Update] = deque()
        self._due = asyncio.Event()
        self._slots = 0
        self._known_slots: int | None = None  # to the service
        self._is_open = False
        self._opened = self._last_read = 0.0
        self._closing = False
        self._error: JobledgerError | None = None
        self._call: WorkCall | None = None

    # --- for the worker -----------------------------------------------------------------------

    async def send(self, *updates: JobUpdate) -> UpdateResult:
        """Send updates of a job in this order; return the result of the last one.

        Raises:
            MessageTooLarge: an update is larger than a message.
            JobledgerError: the last update was refused, or `fail` was called with this error.
        """
        if self._error is not None:
            raise self._error
        # With its tag and length in the message.
        sizes = [update.ByteSize() + 5 for update in updates]
        if max(sizes) > MAX_BYTES:
            raise MessageTooLarge(
                f"an update has {max(sizes)} bytes, and a message at most {MAX_BYTES}",
                code=grpc.StatusCode.RESOURCE_EXHAUSTED,
            )
        waiting = [_Update(update, size) for update, size in zip(updates, sizes, strict=True)]
        result: asyncio.Future[UpdateResult] = asyncio.get_running_loop().create_future()
        waiting[-1].result = result
        self._unsent.extend(waiting)
        self._due.set()
        try:
            answer = await result
        except asyncio.CancelledError:
            # What was sent keeps its slot, because its result will come.
            for each in waiting:
                if each in self._unsent:
                    self._unsent.remove(each)
            raise
        if answer.HasField("error"):
            raise from_update_error(answer.error)
        return answer

    def set_slots(self, slots: int) -> None:
        """Say how many jobs the worker may hold."""
        if slots != self._slots:
            self._slots = slots
            self._due.set()

    def close(self) -> None:
        """Close this side of the stream, after what waits; one that is not open is cancelled."""
        self._closing = True
        self._due.set()
        if self._call is not None and not self._is_open:
            self._call.cancel()

    def fail(self, error: JobledgerError) -> None:
        """Raise this error in every `send`: no further stream is opened."""
        self._error = error
        for update in (*self._sent, *self._unsent):
            if update.result is not None and not update.result.done():
                update.result.set_exception(error)

    async def serve(
        self, hello: WorkHello, receive: Callable[[WorkResponse, float | None], None]
    ) -> JobledgerError | None:
        """Open a stream and serve it to its end; return why it ended, None after `close`.

        Args:
            hello: the worker as it is now.
            receive: called with each message, and the event loop's time at which the newest message
                was sent that the service is now known to have read, if there is another one.
        """
        self._opened = self._last_read = self._clock()
        self._known_slots = None
        try:
            async with asyncio.timeout(self._answer_timeout):
                call = self._call = await self._open_call()
        except JobledgerError as failure:
            return failure
        except TimeoutError:
            return _timed_out("the stream of Work was not opened in time")
        tasks = (
            asyncio.create_task(self._write(call, hello)),
            asyncio.create_task(self._watch(call)),
        )
        try:
            error = await self._read(call, receive)
        finally:
            self._is_open = False
            self._call = None
            call.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._send_again()
        return None if self._closing else error

    def _send_again(self) -> None:
        """Put what was sent and has no result before what was not sent."""
        for update in reversed(self._sent):
            if update.result is None or not update.result.done():  # else nobody waits for it
                self._unsent.appendleft(update)
        self._sent.clear()

    # --- reading ------------------------------------------------------------------------------

    async def _read(
        self, call: WorkCall, receive: Callable[[WorkResponse, float | None], None]
    ) -> JobledgerError:
        """Read a stream to its end; return why it ended."""
        try:
            while (read := await call.read()) is not grpc.aio.EOF:
                response = cast("WorkResponse", read)
                receive(response, self._take_results(response))
        except grpc.RpcError as error:
            return from_rpc_error(error)
        except InternalError as error:
            return error
        except asyncio.CancelledError:
            # A cancelled call raises the same error as a cancelled task.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return _timed_out("nothing came on the stream of Work")
        # The service does this only after this side was closed; otherwise it may be a proxy.
        return Unavailable("the stream of Work ended", code=grpc.StatusCode.UNAVAILABLE)

    def _take_results(self, response: WorkResponse) -> float | None:
        """Pass results on; return when the newest message was sent that was read for them."""
        self._last_read = self._clock()
        read = None if self._is_open else self._opened
        self._is_open = True
        for result in response.results:
            if not self._sent or self._sent[0].message.job_id != result.job_id:
                raise InternalError(
                    "the result of an update that was not sent", code=grpc.StatusCode.INTERNAL
                )
            update = self._sent.popleft()
            if update.result is not None and not update.result.done():
                update.result.set_result(result)
            # Where the database is unavailable, no lease was renewed either.
            if not result.HasField("error"):
                read = update.sent
        if self._unsent:
            self._due.set()
        return read

    async def _watch(self, call: WorkCall) -> None:
        """Cancel a stream that is silent for too long."""
        while True:
            await asyncio.sleep(self._answer_timeout / 4)
            owes = self._sent or not self._is_open
            since = max(self._last_read, self._sent[0].sent) if self._sent else self._last_read
            if self._clock() - since > (self._answer_timeout if owes else IDLE_TIMEOUT):
                call.cancel()

    # --- writing ------------------------------------------------------------------------------

    async def _write(self, call: WorkCall, hello: WorkHello) -> None:
        # The reader gets the error of a stream that cannot be written to.
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            await call.write(self._message(hello))
            while not self._closing or self._unsent:
                if not self._unsent or len(self._sent) >= MAX_WAITING:
                    await wait_at_most(self._heartbeat, self._due)
                await call.write(self._message())
            await call.done_writing()

    def _message(self, hello: WorkHello | None = None) -> WorkRequest:
        """Return a message with all that waits and fits; an empty one is a heartbeat."""
        self._due.clear()
        changed = self._slots != self._known_slots
        message = WorkRequest(hello=hello, slots=self._slots if changed else None)
        self._known_slots = self._slots
        size = 0 if hello is None else hello.ByteSize()
        now = self._clock()
        while self._unsent and len(self._sent) < MAX_WAITING:
            if size + self._unsent[0].size > MAX_BYTES:
                break
            update = self._unsent.popleft()
            size += update.size
            update.sent = now
            message.updates.append(update.message)
            self._sent.append(update)
        return message


def _timed_out(message: str) -> DeadlineExceeded:
    return DeadlineExceeded(message, code=grpc.StatusCode.DEADLINE_EXCEEDED)
