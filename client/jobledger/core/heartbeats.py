"""Heartbeats for the caller of a watch: an event after each so many seconds without one.

They come by the clock of the client: whatever the service's own interval is, and also while the
connection is opened again. The two forms stand next to each other so that they stay alike.
"""

import asyncio
import contextvars
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial
from typing import Protocol, TypeVar

from jobledger.core.conversion import Seconds
from jobledger.core.options import seconds_of
from jobledger.core.reconnecting import EventT
from jobledger.core.streams import Stop


class Beating(Protocol):
    """An event that says whether it is a heartbeat."""

    @property
    def heartbeat(self) -> bool: ...


BeatingT = TypeVar("BeatingT", bound=Beating)

# Of the last event of the watch, and of the seconds since the service has sent anything.
Quiet = Callable[[BeatingT, float], BeatingT]


AsyncBeats = Callable[[AsyncGenerator[EventT, None], Stop], AsyncGenerator[EventT, None]]
Beats = Callable[[Generator[EventT, None, None], Stop], Generator[EventT, None, None]]


def beats_async(heartbeats: Seconds | None, quiet: Quiet[BeatingT]) -> AsyncBeats[BeatingT] | None:
    """Return what adds heartbeats to the events of a watch; None if there are to be none."""
    seconds = _checked(heartbeats)
    return None if seconds is None else partial(_add_async, seconds, quiet)


def beats(heartbeats: Seconds | None, quiet: Quiet[BeatingT]) -> Beats[BeatingT] | None:
    """Return what adds heartbeats to the events of a watch; None if there are to be none."""
    seconds = _checked(heartbeats)
    return None if seconds is None else partial(_add, seconds, quiet)


def _checked(heartbeats: Seconds | None) -> float | None:
    seconds = seconds_of(heartbeats, "heartbeats")
    if seconds == 0:
        raise ValueError("heartbeats: must be more than 0 seconds")
    return seconds


async def _add_async(
    seconds: float, quiet: Quiet[BeatingT], events: AsyncGenerator[BeatingT, None], _stop: Stop
) -> AsyncGenerator[BeatingT, None]:
    clock = asyncio.get_running_loop().time
    last: BeatingT | None = None
    received_at = clock()
    due = received_at + seconds
    reading: asyncio.Future[BeatingT] | None = None
    try:
        while True:
            # Never cancelled because it is late: that would end the stream.
            reading = reading or asyncio.ensure_future(anext(events))
            await asyncio.wait([reading], timeout=max(due - clock(), 0.0))
            if reading.done():
                try:
                    last = reading.result()
                except StopAsyncIteration:
                    return
                finally:
                    reading = None
                received_at = clock()
                if not last.heartbeat:
                    yield last
                    due = clock() + seconds
            else:
                if last is not None:
                    yield quiet(last, clock() - received_at)
                due = clock() + seconds
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        await events.aclose()


def _add(
    seconds: float, quiet: Quiet[BeatingT], events: Generator[BeatingT, None, None], stop: Stop
) -> Generator[BeatingT, None, None]:
    # A blocking read has no timeout, so a thread reads, at most one event ahead.
    arrived: queue.SimpleQueue[BeatingT | BaseException] = queue.SimpleQueue()
    wanted = threading.Semaphore()

    def read() -> None:
        end: BaseException = StopIteration()
        try:
            while wanted.acquire() and not stop.requested:
                arrived.put(next(events))
        except BaseException as error:  # noqa: BLE001  # a callback may exit the program
            end = error
        events.close()
        arrived.put(end)

    # With the context of the caller, for its trace.
    run = contextvars.copy_context().run
    threading.Thread(target=run, args=(read,), name="jobledger-watch", daemon=True).start()
    last: BeatingT | None = None
    received_at = time.monotonic()
    due = received_at + seconds
    try:
        while True:
            try:
                event = arrived.get(timeout=max(due - time.monotonic(), 0.0))
            except queue.Empty:
                if last is not None:
                    yield quiet(last, time.monotonic() - received_at)
                due = time.monotonic() + seconds
                continue
            if isinstance(event, StopIteration):
                return
            if isinstance(event, BaseException):
                raise event
            last, received_at = event, time.monotonic()
            if not last.heartbeat:
                yield last
                due = time.monotonic() + seconds
            wanted.release()
    finally:
        stop.request()
        wanted.release()
