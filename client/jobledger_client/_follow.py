"""Watching over the network: opens streams until the job has ended.

The two loops stand side by side so that they stay alike. What counts as news
and how long to wait is decided in _watch.py. Each stream is cancelled whichever
way its loop is left: grpc does not collect abandoned calls (grpc#43462).
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Protocol, TypeAlias

import grpc

from jobledger.v1.job_service_pb2 import WatchJobRequest, WatchJobResponse
from jobledger_client._watch import Watch, client_closed, ended_early, fell_silent
from jobledger_client.errors import JobledgerError, from_rpc_error

AsyncCall: TypeAlias = "grpc.aio.UnaryStreamCall[WatchJobRequest, WatchJobResponse]"

_logger = logging.getLogger("jobledger_client")


class Call(Protocol):
    """What a blocking stream can do; grpc keeps its own name for it private."""

    def __next__(self) -> WatchJobResponse: ...

    def cancel(self) -> object: ...


async def follow_async(
    open_call: Callable[[WatchJobRequest], AsyncCall],
    request: WatchJobRequest,
    closed: asyncio.Event,
    *,
    reconnect_timeout: float | None,
    within: float | None = None,
) -> AsyncGenerator[WatchJobResponse, None]:
    watch = Watch(request, reconnect_timeout=reconnect_timeout, timeout=within)
    while True:
        call = open_call(watch.request())
        try:
            while not isinstance(read := await _read_async(call, watch, closed), JobledgerError):
                if watch.accept(read):
                    yield read
                if watch.ended:
                    return
        finally:
            call.cancel()
        pause = _pause(watch, read)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await closed.wait()
            raise client_closed()


async def _read_async(
    call: AsyncCall, watch: Watch, closed: asyncio.Event
) -> WatchJobResponse | JobledgerError:
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
    return read if isinstance(read, WatchJobResponse) else ended_early()


def follow(
    open_call: Callable[[WatchJobRequest], Call],
    request: WatchJobRequest,
    closed: threading.Event,
    *,
    reconnect_timeout: float | None,
    within: float | None = None,
) -> Generator[WatchJobResponse, None, None]:
    watch = Watch(request, reconnect_timeout=reconnect_timeout, timeout=within)
    watchdog = _Watchdog()
    try:
        while True:
            call = open_call(watch.request())
            try:
                while not isinstance(read := _read(call, watch, watchdog), JobledgerError):
                    if watch.accept(read):
                        yield read
                    if watch.ended:
                        return
            finally:
                call.cancel()
            pause = _pause(watch, read)
            if closed.wait(pause):
                raise client_closed()
    finally:
        watchdog.stop()


def _read(call: Call, watch: Watch, watchdog: "_Watchdog") -> WatchJobResponse | JobledgerError:
    watchdog.arm(call, watch.patience())
    try:
        return next(call)
    except StopIteration:
        return ended_early()
    except grpc.RpcError as error:
        return fell_silent() if watchdog.bit else from_rpc_error(error)
    finally:
        watchdog.disarm()


def _pause(watch: Watch, failure: JobledgerError) -> float:
    pause = watch.broken(failure)
    _logger.info("watch broke (%s); another try in %.1f s", failure, pause)
    return pause


class _Watchdog:
    """Cancels a call whose next message does not come in time.

    A blocking read has no timeout of its own; a thread has to end it. Armed only
    while the reader waits: a caller may take its time over a message.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._call: Call | None = None
        self._deadline = 0.0
        self._stopped = False
        self.bit = False
        self._thread = threading.Thread(target=self._run, name="jobledger-watchdog", daemon=True)
        self._thread.start()

    def arm(self, call: Call, seconds: float) -> None:
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
