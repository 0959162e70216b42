"""The connections of one client: the first for its calls, more as its watches fill them.

A connection has 100 streams by default, and a call beyond them would wait until a watch ends.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar

import grpc

from jobledger.core.call_timer import CallTimer
from jobledger.errors import ClientClosed, JobledgerError
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.queue_service_pb2_grpc import QueueServiceStub
from jobledger.v1.webhook_service_pb2_grpc import WebhookServiceStub
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub

WATCHES_PER_CONNECTION: Final = 50


def channel_closed() -> ClientClosed:
    """Return the error of a call on the caller's own channel, closed before the client."""
    return ClientClosed("the client's channel is closed", code=grpc.StatusCode.CANCELLED)


def closed_channel_of(error: ValueError) -> Exception:
    """Return the error for a ValueError of grpc, which it also raises on a closed channel."""
    return channel_closed() if "closed" in str(error) else error


class Connection:
    """A channel with its stubs, for blocking code."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.channel = channel
        self.jobs = JobServiceStub(channel)
        self.worker = WorkerServiceStub(channel)
        self.queues = QueueServiceStub(channel)
        self.webhooks = WebhookServiceStub(channel)
        self.watches = 0


class AsyncConnection:
    """A channel with its stubs, for asyncio."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.jobs = JobServiceStub(channel)
        self.worker = WorkerServiceStub(channel)
        self.queues = QueueServiceStub(channel)
        self.webhooks = WebhookServiceStub(channel)
        self.watches = 0


ConnectionT = TypeVar("ConnectionT", Connection, AsyncConnection)


class _Pool(Generic[ConnectionT]):
    """Opens connections when they are needed.

    Args:
        first: opens the first one.
        another: opens one more; None if the first one is the caller's own: then all watches
            share it, and it is not closed here.
        credentials: returns what connections are opened with. When it returns other credentials,
            connections are opened anew. Those so far stay open for their calls and watches.
    """

    def __init__(
        self,
        first: Callable[[], ConnectionT],
        another: Callable[[], ConnectionT] | None,
        credentials: Callable[[], object] = lambda: None,
    ) -> None:
        self._credentials: Callable[[], object] = credentials
        self._used: object = None
        self._former: list[ConnectionT] = []
        self._first: Callable[[], ConnectionT] = first
        self._another: Callable[[], ConnectionT] | None = another
        # Reentrant: a signal handler, or a watch that is collected as garbage, may come in between
        # in the thread that has it.
        self._lock = threading.RLock()
        self._opened: list[ConnectionT] = []
        self._watching: dict[Callable[[], object], None] = {}  # as a set that keeps the order
        self._closed = False

    def check(self) -> None:
        """Raise if nothing can be called from here: ClientClosed, JobledgerError."""
        if self._closed:
            raise ClientClosed("the client is closed", code=grpc.StatusCode.CANCELLED)

    def connection(self) -> ConnectionT:
        """Return the connection for calls. Raises ClientClosed, JobledgerError."""
        with self._lock:
            return self._connect()

    @contextmanager
    def for_watch(self, interrupt: Callable[[], object]) -> Iterator[ConnectionT]:
        """Count a watch on a connection until the block ends. Raises as `connection`.

        Args:
            interrupt: called if this is closed within the block.
        """
        with self._lock:
            first = self._connect()
            connection = min(self._opened, key=lambda opened: opened.watches, default=first)
            if connection.watches >= WATCHES_PER_CONNECTION and self._another is not None:
                connection = self._another()
                self._opened.append(connection)
            connection.watches += 1
            self._watching[interrupt] = None
        try:
            yield connection
        finally:
            with self._lock:
                connection.watches -= 1
                del self._watching[interrupt]

    def _connect(self) -> ConnectionT:
        # Under the lock, or a client that another thread closes would open a connection.
        self.check()
        credentials = self._credentials()
        if self._opened and credentials is not self._used:
            self._former += self._opened
            self._opened.clear()
        if not self._opened:
            self._used = credentials
            first = self._first()
            self.check()
            self._opened.append(first)
        return self._opened[0]

    def _take_all(self) -> list[ConnectionT]:
        with self._lock:
            self._closed = True
            opened = self._former + self._opened
            self._former, self._opened = [], []
            watching = list(self._watching)
        for interrupt in watching:
            interrupt()
        return opened if self._another is not None else []


class Channels(_Pool[Connection]):
    """For blocking code. Safe to share between threads.

    It never asks a channel for its state: the thread that gRPC starts for that keeps an interpreter
    from its exit, if the channel is not closed.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.timer = CallTimer()

    def close(self) -> None:
        """Close every connection. May be repeated."""
        for connection in self._take_all():
            connection.channel.close()


class AsyncChannels(_Pool[AsyncConnection]):
    """For asyncio. Belongs to the event loop that makes the first call."""

    _loop: asyncio.AbstractEventLoop | None = None

    def state(self) -> grpc.ChannelConnectivity:
        """Return the state of the first connection."""
        return self.connection().channel.get_state()

    def check(self) -> None:
        super().check()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            # A channel of grpc.aio works in one loop only; in another it would hang.
            raise JobledgerError(
                "this AsyncClient was used in another event loop; make one for each asyncio.run()",
                code=grpc.StatusCode.FAILED_PRECONDITION,
            )

    async def close(self) -> None:
        """Close every connection. May be repeated."""
        for connection in self._take_all():
            await connection.channel.close()
