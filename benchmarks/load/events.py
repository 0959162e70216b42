"""Event streams of a gateway, as browsers open them: read, and the time of each delivery noted."""

import asyncio
import gc
import json
import resource
import time
from contextlib import suppress
from datetime import datetime
from typing import cast

from benchmarks.load import Reply, Wrong

AT_ONCE = 50
"""Streams that are being opened at once."""


class Events:
    """Commands. One set of streams at a time."""

    def __init__(self) -> None:
        self._streams: list[_Stream] = []
        self._deliveries: list[float] = []
        self._wanted = 0
        self._complete = asyncio.Event()
        self._failure: Exception | None = None

    async def open(self, port: int, paths: list[str], streams: int) -> Reply:
        """Open streams, each of the next path; return the seconds until all have their first event.

        Each has a connection of its own.
        """
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        begin, turn = time.monotonic(), asyncio.Semaphore(AT_ONCE)
        loop = asyncio.get_running_loop()

        async def open_in_turn(path: str) -> None:
            async with turn:
                stream = _Stream(self, path)
                await loop.create_connection(lambda: stream, "127.0.0.1", port)
                self._streams.append(stream)
                await stream.opened

        async with asyncio.TaskGroup() as tasks:
            for number in range(streams):
                tasks.create_task(open_in_turn(paths[number % len(paths)]))
        gc.freeze()  # or a collection would walk through all of it during a delivery
        return {"seconds": time.monotonic() - begin}

    async def collect(self, deliveries: int, patience: float) -> Reply:
        """Return the seconds that each delivery took, once there are so many or time is over."""
        self._wanted, self._complete = deliveries, asyncio.Event()
        if len(self._deliveries) < deliveries:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._complete.wait()
        if self._failure is not None:
            raise self._failure
        collected, self._deliveries = self._deliveries, []
        return {"deliveries": collected}

    def add(self, seconds: float) -> None:
        """Note that a change was delivered so long after the service had decided on it."""
        self._deliveries.append(seconds)
        if len(self._deliveries) >= self._wanted:
            self._complete.set()

    def fail(self, why: Exception) -> None:
        """Let the next `collect` fail."""
        self._failure = self._failure or why
        self._complete.set()


class _Stream(asyncio.Protocol):
    """One stream. `opened` is done with its first event."""

    __slots__ = ("_events", "_path", "_rest", "_transport", "opened")

    def __init__(self, events: Events, path: str) -> None:
        self._events = events
        self._path = path
        self._rest = b""
        self._transport: asyncio.BaseTransport | None = None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        request = f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        cast("asyncio.WriteTransport", transport).write(request.encode())

    def data_received(self, data: bytes) -> None:
        # An event is one chunk of the answer, so nothing of HTTP comes between its lines.
        *events, self._rest = (self._rest + data).split(b"\n\n")
        for event in events:
            _, is_news, text = event.partition(b"\ndata: ")
            if not is_news:
                continue
            if self.opened.done():
                updated = json.loads(text)["job"]["updateTime"]
                self._events.add(time.time() - datetime.fromisoformat(updated).timestamp())
            else:
                self.opened.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        failure = exc or Wrong(f"a stream ended after {self._rest!r}")
        if self.opened.done():
            self._events.fail(failure)
        else:
            self.opened.set_exception(failure)
