"""One stream of Work after the other: what a worker sends, and what it receives.

A stream is opened, greets the service with `hello`, and is open once that is answered. Then its
writer puts all that waits into each message: while one is written, the next one fills. Its reader
gives each result to the update that it answers; they come in the order of the updates. When the
stream ends, the updates without a result wait, in their order, for the next stream: all of them
are safe to repeat.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol, cast

import grpc

from jobledger.core.reconnecting import SILENCE
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


class Listener(Protocol):
    """The worker that uses a stream."""

    def hello(self) -> WorkHello:
        """Return the worker as it is when a stream begins."""

    def slots(self) -> int:
        """Return how many jobs the stream may hold; sent whenever it differs."""

    def answered(self, sent: float) -> None:
        """Take note that a message that was sent at this monotonic time has had its effect."""

    def receive(self, response: WorkResponse) -> None:
        """Take jobs and signals."""


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
        listener: the worker that uses it.
        lease: seconds.
        patience: seconds. A stream on which something waits for an answer for so long while
            nothing comes is left for another one.
    """

    def __init__(
        self,
        open_call: Callable[[], Awaitable[WorkCall]],
        listener: Listener,
        *,
        lease: float,
        patience: float,
    ) -> None:
        self.is_open = False
        """Whether `hello` was answered on the present stream."""
        self.was_of_use = False
        """Whether it was on this stream or the last one, and an update too if one came with it."""
        self._open_call = open_call
        self._listener = listener
        self._heartbeat = lease * HEARTBEAT
        self._patience = patience
        self._unsent: deque[_Update] = deque()
        self._sent: deque[_Update] = deque()
        self._due = asyncio.Event()
        self._slots: int | None = None  # as the service knows them
        self._opened = self._heard = 0.0
        self._closing = False
        self._call: WorkCall | None = None

    # --- for the worker -----------------------------------------------------------------------

    async def send(self, *updates: JobUpdate) -> UpdateResult:
        """Send updates of a job in this order; return the result of the last one.

        Raises:
            MessageTooLarge: an update is larger than a message.
            Unavailable: `fail` was called.
            JobledgerError: the last update was refused.
        """
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

    def wake(self) -> None:
        """Send the slots, if they have changed."""
        self._due.set()

    def close(self) -> None:
        """Close this side of the stream, after what waits; one that is not open is cancelled."""
        self._closing = True
        self._due.set()
        if self._call is not None and not self.is_open:
            self._call.cancel()

    def fail(self) -> None:
        """Raise Unavailable in every `send` under way."""
        for update in (*self._sent, *self._unsent):
            if update.result is not None and not update.result.done():
                error = Unavailable("no stream of work", code=grpc.StatusCode.UNAVAILABLE)
                update.result.set_exception(error)
        self._sent.clear()
        self._unsent.clear()

    async def serve(self) -> JobledgerError | None:
        """Open a stream and serve it to its end; return why it ended, None after `close`."""
        self._opened = self._heard = time.monotonic()
        self._slots = None
        self.was_of_use = False
        try:
            async with asyncio.timeout(self._patience):
                call = self._call = await self._open_call()
        except JobledgerError as failure:
            return failure
        except TimeoutError:
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            return DeadlineExceeded("the stream of work was not opened in time", code=code)
        tasks = {asyncio.create_task(self._write(call)), asyncio.create_task(self._watch(call))}
        try:
            error = await self._read(call)
        finally:
            self.is_open = False
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

    async def _read(self, call: WorkCall) -> JobledgerError:
        """Read a stream to its end; return why it ended."""
        try:
            while (read := await call.read()) is not grpc.aio.EOF:
                self._receive(cast("WorkResponse", read))
        except grpc.RpcError as error:
            return from_rpc_error(error)
        except InternalError as error:
            return error
        except asyncio.CancelledError:
            # A cancelled call raises the same error as a cancelled task.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return DeadlineExceeded(
                "nothing came on the stream of work", code=grpc.StatusCode.DEADLINE_EXCEEDED
            )
        # The service does this only after this side was closed; otherwise it may be a proxy.
        return Unavailable("the stream of work ended", code=grpc.StatusCode.UNAVAILABLE)

    def _receive(self, response: WorkResponse) -> None:
        self._heard = time.monotonic()
        if not self.is_open:
            self.is_open = True
            self._listener.answered(self._opened)
        if response.results or not self._sent:
            self.was_of_use = True
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
                self._listener.answered(update.sent)
        if self._unsent:
            self._due.set()
        self._listener.receive(response)

    async def _watch(self, call: WorkCall) -> None:
        """Cancel a stream that is silent for too long."""
        while True:
            await asyncio.sleep(self._patience / 4)
            is_due = self._sent or not self.is_open
            since = max(self._heard, self._sent[0].sent) if self._sent else self._heard
            if time.monotonic() - since > (self._patience if is_due else SILENCE):
                call.cancel()

    # --- writing ------------------------------------------------------------------------------

    async def _write(self, call: WorkCall) -> None:
        # The reader gets the error of a stream that cannot be written to.
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            await call.write(self._message(self._listener.hello()))
            while not self._closing or self._unsent:
                if not self._unsent or len(self._sent) >= MAX_WAITING:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._heartbeat):
                            await self._due.wait()
                await call.write(self._message())
            await call.done_writing()

    def _message(self, hello: WorkHello | None = None) -> WorkRequest:
        """Return a message with all that waits and fits; an empty one is a heartbeat."""
        self._due.clear()
        slots = self._listener.slots()
        message = WorkRequest(hello=hello, slots=None if slots == self._slots else slots)
        self._slots = slots
        size = 0 if hello is None else hello.ByteSize()
        now = time.monotonic()
        while self._unsent and len(self._sent) < MAX_WAITING:
            if size + self._unsent[0].size > MAX_BYTES:
                break
            update = self._unsent.popleft()
            size += update.size
            update.sent = now
            message.updates.append(update.message)
            self._sent.append(update)
        return message
