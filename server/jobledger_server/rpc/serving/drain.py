"""Draining: new calls are refused, then gRPC stops, streams are ended, running calls finish.

gRPC's own `stop(grace)` cancels calls that have arrived and were not started yet; their
callers cannot know whether the change was made. It also waits, for the whole grace
period, for streams of other services. So both must be gone before it is called.

From then on clients open new calls on other connections, to other servers. So watches end after
that: before, they would be opened again on this server, and refused.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager

from jobledger_server.admission.endings import ShuttingDown
from jobledger_server.rpc.access.lasting_calls import LastingCalls
from jobledger_server.rpc.call import UNKNOWN

REFUSED_RETRY_SECONDS = 1
"""How long to wait for clients that retry at once."""


class Drain:
    """Counts the running calls of Jobledger's own services, and refuses new ones.

    Each call runs in a `with` block, which raises ShuttingDown once `begun` is set. `idle` is set
    while no call runs.

    Args:
        end_streams: Ends the open streams.
        quiet_seconds: After this long without a call, none has arrived that was not started.
    """

    def __init__(self, end_streams: Callable[[], None], *, quiet_seconds: float) -> None:
        self.begun = asyncio.Event()
        self.end_streams = end_streams
        self._quiet_seconds = quiet_seconds
        self.running = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self._refused = asyncio.Event()
        self._others = LastingCalls()

    def __enter__(self) -> None:
        if self.begun.is_set():
            self._refused.set()
            raise ShuttingDown(retry_after=REFUSED_RETRY_SECONDS)
        if not self.running:
            self.idle.clear()
        self.running += 1

    def __exit__(self, *_: object) -> None:
        self.running -= 1
        if not self.running:
            self.idle.set()

    def end_other_streams(self) -> None:
        """End the streams of other services. Watches of health have heard of the drain by then."""
        self._others.end_where(lambda _: True)

    def ending(self) -> AbstractContextManager[None]:
        """Return the context to serve a stream of another service in. Raises ShuttingDown."""
        if self.begun.is_set():
            raise ShuttingDown
        return self._others.until_ended(UNKNOWN, ShuttingDown)

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
