"""Watches over the network: opens streams until the watch has ended.

The two loops stand next to each other so that they stay alike. reconnecting.py and its children
decide what the caller gets and how long to wait. Each stream is cancelled however its loop is
left: grpc does not collect abandoned calls (grpc#43462).
"""

import asyncio
import contextlib
import inspect
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar, cast

import grpc

from jobledger.core.call_timer import Watchdog
from jobledger.core.channels import (
    AsyncChannels,
    AsyncConnection,
    Channels,
    Connection,
    channel_closed,
    closed_channel_of,
)
from jobledger.core.options import Headers, OnError, WatchOptions
from jobledger.core.reconnecting import (
    EventT,
    Pause,
    Reconnecting,
    RequestT,
    ResponseT,
    Why,
    ended_early,
    timed_out,
)
from jobledger.core.retry import wait_at_most
from jobledger.errors import DeadlineExceeded, JobledgerError, Unavailable, from_rpc_error

ReadT = TypeVar("ReadT")
ReadT_co = TypeVar("ReadT_co", covariant=True)

AsyncCall: TypeAlias = grpc.aio.UnaryStreamCall[Any, ReadT]

_logger = logging.getLogger("jobledger")


class Call(Protocol[ReadT_co]):
    """What a blocking stream can do; grpc keeps its own name for it private."""

    def __next__(self) -> ReadT_co: ...

    def cancel(self) -> object: ...


class Callbacks:
    """The callbacks of a watch, each called once for a break."""

    def __init__(self, on_gap: OnError | None, options: WatchOptions) -> None:
        self._on_gap = on_gap
        self._on_disconnect = options.get("on_disconnect")
        self._on_reconnect = options.get("on_reconnect")
        self._connected = True

    def broken(self, why: Why, error: JobledgerError) -> object:
        """Call `on_gap` or `on_disconnect` after a break; return what it returned."""
        if why is Why.GAP:
            return self._on_gap(error) if self._on_gap is not None else None
        if why is Why.LOST and self._connected:
            self._connected = False
            return self._on_disconnect(error) if self._on_disconnect is not None else None
        return None

    def received(self) -> object:
        """Call `on_reconnect` with the first message after a break; return what it returned."""
        if self._connected:
            return None
        self._connected = True
        return self._on_reconnect() if self._on_reconnect is not None else None


class Stop:
    """Ends a watch from outside its loop: a generator cannot be closed while it is read."""

    def __init__(self) -> None:
        self.requested = False
        self._interrupted = False
        self._cancel: Callable[[], object] | None = None

    # Each writes before it reads, so that of two threads one sees what the other has written.

    def opened(self, cancel: Callable[[], object]) -> None:
        """Record how the present stream is cancelled."""
        self._cancel = cancel
        if self.requested or self._interrupted:
            cancel()

    def interrupt(self) -> None:
        """Cancel the stream: the client was closed, which the loop finds out."""
        self._interrupted = True
        if self._cancel is not None:
            self._cancel()

    def request(self) -> None:
        """End the loop: at once, or after its pause between two streams."""
        self.requested = True
        if self._cancel is not None:
            self._cancel()


class AsyncWatch(Generic[EventT]):
    """An asynchronous iterator of events, which ends its stream when it is closed.

    Use it as `async with client.watch(job_id) as changes:` or directly in an `async for`. Without
    `async with`, call `aclose` to stop before the end.
    """

    def __init__(self, events: AsyncGenerator[EventT, None], stop: Stop) -> None:
        self._events = events
        self._stop = stop

    def __aiter__(self) -> AsyncIterator[EventT]:
        return self._events

    async def __anext__(self) -> EventT:
        return await anext(self._events)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the stream, and the iteration of another task. May be repeated."""
        self._stop.request()
        with contextlib.suppress(RuntimeError):  # Another task iterates, up to here.
            await self._events.aclose()


class Watch(Generic[EventT]):
    """An iterator of events, which ends its stream when it is closed.

    Use it as `with client.watch(job_id) as changes:` or directly in a `for`. Without `with`, call
    `close` to stop before the end.
    """

    def __init__(self, events: Generator[EventT, None, None], stop: Stop) -> None:
        self._events = events
        self._stop = stop

    def __iter__(self) -> Iterator[EventT]:
        return self._events

    def __next__(self) -> EventT:
        return next(self._events)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the stream, and the iteration of another thread. May be repeated."""
        self._stop.request()
        # Where it runs, it now comes to its end. Closing it meanwhile can crash Python before 3.13,
        # which reads a running generator as if it were suspended (`_PyGen_yf` in genobject.c).
        if inspect.getgeneratorstate(self._events) != inspect.GEN_RUNNING:
            self._events.close()


async def follow_async(
    channels: AsyncChannels,
    open_call: Callable[[AsyncConnection, RequestT, Headers], AsyncCall[ResponseT]],
    begin: Callable[..., Reconnecting[RequestT, ResponseT, EventT]],
    stop: Stop,
    *,
    headers: Callable[[float], Awaitable[Headers]],
    target: str,
    closed: asyncio.Event,
    callbacks: Callbacks,
) -> AsyncGenerator[EventT, None]:
    """Yield the events of a watch, over any number of streams. Raises JobledgerError."""
    watch = begin(clock=asyncio.get_running_loop().time)
    while True:
        watch.opens()
        with channels.for_watch(stop.interrupt) as connection:
            try:
                call = open_call(connection, watch.request(), await headers(watch.max_silence()))
            except grpc.aio.UsageError as error:
                raise channel_closed() from error
            except (Unavailable, DeadlineExceeded) as no_token:
                failure: JobledgerError = no_token
            else:
                stop.opened(call.cancel)
                try:
                    while not isinstance(
                        read := await _read_async(call, watch, target), JobledgerError
                    ):
                        events = watch.accept(read)
                        await _finish(callbacks.received())
                        for event in events:
                            yield event
                        if watch.ended:
                            return
                finally:
                    call.cancel()
                failure = read
        if stop.requested:
            return
        channels.check()
        pause = _pause(watch, failure)
        await _finish(callbacks.broken(pause.why, failure))
        await wait_at_most(pause.seconds, closed)
        if stop.requested:
            return
        channels.check()


async def _finish(returned: object) -> None:
    """Await what a callback returned, if it was a coroutine function."""
    if inspect.isawaitable(returned):
        await returned


async def _read_async(
    call: AsyncCall[ResponseT],
    watch: Reconnecting[RequestT, ResponseT, EventT],
    target: str,
) -> ResponseT | JobledgerError:
    try:
        async with asyncio.timeout(watch.max_silence()):
            read = await call.read()
    except TimeoutError:
        return timed_out(target)
    except grpc.RpcError as error:
        return from_rpc_error(error, target=target)
    except asyncio.CancelledError:
        # A cancelled call raises the same error as a cancelled task.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return JobledgerError("the stream was cancelled", code=grpc.StatusCode.CANCELLED)
    return ended_early() if read is grpc.aio.EOF else cast("ResponseT", read)


def follow(
    channels: Channels,
    open_call: Callable[[Connection, RequestT, Headers], Call[ResponseT]],
    begin: Callable[..., Reconnecting[RequestT, ResponseT, EventT]],
    stop: Stop,
    *,
    headers: Callable[[float], Headers],
    target: str,
    closed: threading.Event,
    callbacks: Callbacks,
) -> Generator[EventT, None, None]:
    """Yield the events of a watch, over any number of streams. Raises JobledgerError."""
    watch = begin(clock=time.monotonic)
    watchdog = channels.timer.watchdog()
    try:
        while True:
            watch.opens()
            with channels.for_watch(stop.interrupt) as connection:
                try:
                    call = open_call(connection, watch.request(), headers(watch.max_silence()))
                except ValueError as error:
                    channels.check()
                    raise closed_channel_of(error) from error
                except (Unavailable, DeadlineExceeded) as no_token:
                    failure: JobledgerError = no_token
                else:
                    stop.opened(call.cancel)
                    try:
                        while not isinstance(
                            read := _read(call, watch, watchdog, target), JobledgerError
                        ):
                            events = watch.accept(read)
                            callbacks.received()
                            yield from events
                            if watch.ended:
                                return
                    finally:
                        call.cancel()
                    failure = read
            if stop.requested:
                return
            channels.check()
            pause = _pause(watch, failure)
            callbacks.broken(pause.why, failure)
            closed.wait(pause.seconds)
            if stop.requested:
                return
            channels.check()
    finally:
        watchdog.stop()


def _read(
    call: Call[ResponseT],
    watch: Reconnecting[RequestT, ResponseT, EventT],
    watchdog: Watchdog,
    target: str,
) -> ResponseT | JobledgerError:
    watchdog.arm(call.cancel, watch.max_silence())
    try:
        return next(call)
    except StopIteration:
        return ended_early()
    except grpc.RpcError as error:
        return timed_out(target) if watchdog.fired else from_rpc_error(error, target=target)
    finally:
        watchdog.disarm()


def _pause(watch: Reconnecting[RequestT, ResponseT, EventT], failure: JobledgerError) -> Pause:
    pause = watch.broken(failure)
    match pause.why:
        case Why.LOST:
            _logger.info("watch broke (%s); reconnecting in %.1f s", failure, pause.seconds)
        case Why.MOVED:
            _logger.debug("the server ended the stream; reconnecting")
        case Why.GAP:
            _logger.info("watch cannot resume (%s); listing the jobs again", failure)
    return pause
