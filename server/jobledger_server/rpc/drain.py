"""Draining: the calls that run finish, new ones are turned away, streams are ended.

gRPC's own `stop(grace)` cancels what has arrived and was not taken up yet, which
a caller cannot tell from a change that was made; and it waits, to the end of the
grace period, for streams that other services keep open as long as their clients
like. So by the time it is called there should be neither.
"""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import grpc

from jobledger_server.watch.job_watch import Draining

QUIET_SECONDS = 0.1
"""Nobody has called for so long: those who were turned away have understood."""

PATIENCE_SECONDS = 1.0
"""How long callers that come back at once are given to understand."""

OWN_METHODS = ("/jobledger.", "/google.longrunning.Operations/")
"""How the paths of Jobledger's own services begin; the others' are gRPC's: health, reflection."""

Context = grpc.aio.ServicerContext[Any, Any]


class Drain:
    """Knows which calls of Jobledger's own services run, and turns new ones away.

    Each runs in a `with` block of it, which raises Draining at its begin.
    """

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._turned_away = asyncio.Event()

    def __enter__(self) -> None:
        if self.begun.is_set():
            self._turned_away.set()
            raise Draining
        if not self._running:
            self._idle.clear()
        self._running += 1

    def __exit__(self, *_: object) -> None:
        self._running -= 1
        if not self._running:
            self._idle.set()

    async def finished(self) -> None:
        """Return when no call runs and callers have stopped coming."""
        await self._idle.wait()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        while loop.time() < deadline:
            self._turned_away.clear()
            try:
                async with asyncio.timeout(QUIET_SECONDS):
                    await self._turned_away.wait()
            except TimeoutError:
                return


def until_draining(drain: Drain, behavior: Callable[[Any, Context], Any]) -> Any:
    """Return the behavior of another service's stream, ended with UNAVAILABLE by draining."""

    async def stream(request: Any, context: Context) -> None:
        serving = asyncio.create_task(_serve(behavior, request, context))
        draining = asyncio.create_task(drain.begun.wait())
        try:
            await asyncio.wait((serving, draining), return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                await context.abort(grpc.StatusCode.UNAVAILABLE, "this server is shutting down")
            serving.result()
        finally:
            serving.cancel()
            draining.cancel()

    return stream


async def _serve(behavior: Callable[[Any, Context], Any], request: Any, context: Context) -> None:
    if inspect.isasyncgenfunction(behavior):
        async for message in behavior(request, context):
            await context.write(message)
    else:
        await behavior(request, context)
