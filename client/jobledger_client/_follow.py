"""Watching over the network: opens streams until the watch has ended.

The two loops stand side by side so that they stay alike. What the caller gets
and how long to wait is decided in _reconnect.py and its children. Each stream is
cancelled whichever way its loop is left: grpc does not collect abandoned calls
(grpc#43462).
"""

import asyncio
import contextlib
import inspect
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Protocol, TypeAlias, TypeVar, cast

import grpc

from jobledger_client._channel import StubT, WatchStubs
from jobledger_client._reconnect import (
    Pause,
    Reconnecting,
    RequestT,
    ResponseT,
    Why,
    client_closed,
    ended_early,
    fell_silent,
)
from jobledger_client.errors import JobledgerError, from_rpc_error

ReadT_co = TypeVar("ReadT_co", covariant=True)
OnGap: TypeAlias = Callable[[JobledgerError], object]

_logger = logging.getLogger("jobledger_client")


class Call(Protocol[ReadT_co]):
    """What a blocking stream can do; grpc keeps its own name for it private."""

    def __next__(self) -> ReadT_co: ...

    def cancel(self) -> object: ...


async def follow_async(
    watches: WatchStubs[StubT],
    open_call: "Callable[[StubT, RequestT], grpc.aio.UnaryStreamCall[RequestT, ResponseT]]",
    begin: Callable[[], Reconnecting[RequestT, ResponseT]],
    closed: asyncio.Event,
    on_gap: OnGap | None = None,
) -> AsyncGenerator[ResponseT, None]:
    watch = begin()
    while True:
        watch.opens()
        with watches.stub() as jobs:
            call = open_call(jobs, watch.request())
            try:
                while not isinstance(
                    read := await _read_async(call, watch, closed), JobledgerError
                ):
                    if watch.accept(read):
                        yield read
                    if watch.ended:
                        return
            finally:
                call.cancel()
        pause = _pause(watch, read)
        if pause.why is Why.GAP and on_gap is not None:
            said = on_gap(read)
            if inspect.isawaitable(said):
                await said
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause.seconds):
                await closed.wait()
            raise client_closed()


async def _read_async(
    call: "grpc.aio.UnaryStreamCall[RequestT, ResponseT]",
    watch: Reconnecting[RequestT, ResponseT],
    closed: asyncio.Event,
) -> ResponseT | JobledgerError:
    try:
        async with asyncio.timeout(watch.patience()):
            read = await call.read()
    except TimeoutError:
        return fell_silent()
    except grpc.RpcError as error:
        return from_rpc_error(error)
    except asyncio.CancelledError:
        # Closing the channel looks like being cancelled; only a task that was
        # asked to stop may stop this way.
        task = asyncio.current_task()
        if closed.is_set() and task is not None and not task.cancelling():
            return client_closed()
        raise
    return ended_early() if read is grpc.aio.EOF else cast("ResponseT", read)


def follow(
    watches: WatchStubs[StubT],
    open_call: Callable[[StubT, RequestT], Call[ResponseT]],
    begin: Callable[[], Reconnecting[RequestT, ResponseT]],
    closed: threading.Event,
    on_gap: OnGap | None = None,
) -> Generator[ResponseT, None, None]:
    watch = begin()
    watchdog = _Watchdog()
    try:
        while True:
            watch.opens()
            with watches.stub() as jobs:
                call = open_call(jobs, watch.request())
                try:
                    while not isinstance(read := _read(call, watch, watchdog), JobledgerError):
                        if watch.accept(read):
                            yield read
                        if watch.ended:
                            return
                finally:
                    call.cancel()
            pause = _pause(watch, read)
            if pause.why is Why.GAP and on_gap is not None:
                on_gap(read)
            if closed.wait(pause.seconds):
                raise client_closed()
    finally:
        watchdog.stop()


def _read(
    call: Call[ResponseT], watch: Reconnecting[RequestT, ResponseT], watchdog: "_Watchdog"
) -> ResponseT | JobledgerError:
    watchdog.arm(call, watch.patience())
    try:
        return next(call)
    except StopIteration:
        return ended_early()
    except grpc.RpcError as error:
        return fell_silent() if watchdog.bit else from_rpc_error(error)
    finally:
        watchdog.disarm()


def _pause(watch: Reconnecting[RequestT, ResponseT], failure: JobledgerError) -> Pause:
    pause = watch.broken(failure)
    match pause.why:
        case Why.LOST:
            _logger.info("watch broke (%s); another try in %.1f s", failure, pause.seconds)
        case Why.MOVED:
            # Nothing happened that anybody has to know of.
            _logger.debug("watch moves to another stream")
        case Why.GAP:
            _logger.info("watch cannot go on where it was (%s); it begins anew", failure)
    return pause


class _Watchdog:
    """Cancels a call whose next message does not come in time.

    A blocking read has no timeout of its own; a thread has to end it. Armed only
    while the reader waits: a caller may take its time over a message.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._call: Call[object] | None = None
        self._deadline = 0.0
        self._stopped = False
        self.bit = False
        self._thread = threading.Thread(target=self._run, name="jobledger-watchdog", daemon=True)
        self._thread.start()

    def arm(self, call: Call[object], seconds: float) -> None:
        with self._changed:
            self._call, self._deadline, self.bit = call, time.monotonic() + seconds, False
            self._changed.notify()

    def disarm(self) -> None:
        with self._changed:
            self._call = None

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._stopped:
                left = self._deadline - time.monotonic()
                if self._call is None:
                    self._changed.wait()
                elif left > 0:
                    self._changed.wait(left)
                else:
                    self.bit = True
                    self._call.cancel()
                    self._call = None
