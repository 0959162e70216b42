"""Draining: new calls are refused, then gRPC stops, streams are ended, running calls finish.

gRPC's own `stop(grace)` cancels calls that have arrived and were not started yet; their
callers cannot know whether the change was made. It also waits, for the whole grace
period, for streams of other services. So both must be gone before it is called.

From then on clients open new calls on other connections, to other servers. So watches end after
that: before, they would be opened again on this server, and refused.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from jobledger_server.admission.endings import ShuttingDown

REFUSED_RETRY_SECONDS = 1
"""How long to wait for clients that retry at once."""


class Drain:
    """Counts the running calls of Jobledger's own services, and refuses new ones.

    Each call runs in a `with` block, which raises ShuttingDown once `begin` was called.

    Args:
        end_streams: Ends the open streams.
        quiet_seconds: After this long without a call, none has arrived that was not started.
    """

    def __init__(self, end_streams: Callable[[], None], *, quiet_seconds: float) -> None:
        self.begun = asyncio.Event()
        self.end_streams = end_streams
        self._quiet_seconds = quiet_seconds
        self.running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._refused = asyncio.Event()
        self._others: dict[asyncio.Task[Any], None] = {}  # as a set that keeps the order

    def __enter__(self) -> None:
        if self.begun.is_set():
            self._refused.set()
            raise ShuttingDown(retry_after=REFUSED_RETRY_SECONDS)
        if not self.running:
            self._idle.clear()
        self.running += 1

    def __exit__(self, *_: object) -> None:
        self.running -= 1
        if not self.running:
            self._idle.set()

    def begin(self) -> None:
        """Refuse new calls."""
        self.begun.set()

    def end_other_streams(self) -> None:
        """End the streams of other services. Watches of health have heard of the drain by then."""
        for task in self._others:
            task.cancel()

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Serve a stream of another service in the block. Raises ShuttingDown."""
        if self.begun.is_set():
            raise ShuttingDown
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._others[task] = None
        try:
            yield
        except asyncio.CancelledError:
            if not self.begun.is_set() or task.uncancel():
                raise  # the client has cancelled it
            raise ShuttingDown from None
        finally:
            del self._others[task]

    async def idle(self) -> None:
        """Return when no call runs."""
        await self._idle.wait()

    async def quiet(self) -> None:
        """Return when no client calls any more."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + REFUSED_RETRY_SECONDS
        while loop.time() < deadline:
            self._refused.clear()
            try:
                async with asyncio.timeout(self._quiet_seconds):
                    await self._refused.wait()
            except TimeoutError:
                return
