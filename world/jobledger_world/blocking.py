"""Blocking code in simulated time: each function in a greenlet instead of a thread.

Where it would block, the greenlet is left and the event loop goes on, as SQLAlchemy's asyncio does.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet

from jobledger_world.refusals import NotSimulated

Result = TypeVar("Result")


class Greenlets:
    """Runs plain functions in the event loop's own thread; see `jobledger.worker`'s `Threads`."""

    def __init__(self) -> None:
        self._running: dict[asyncio.Task[object], None] = {}

    def start(self, function: Callable[[], object], name: str) -> None:
        """Start a function. Its task belongs to the node that runs now."""
        task = asyncio.get_running_loop().create_task(greenlet_spawn(function), name=name)
        self._running[task] = None
        task.add_done_callback(self._running.pop)

    def wait(self, call: Coroutine[Any, Any, Result], loop: asyncio.AbstractEventLoop) -> Result:
        """Wait until a coroutine has run, in a task of its own."""
        return await_only(loop.create_task(call))

    def may_wait(self) -> bool:
        """Whether this is such a function, and not the event loop itself."""
        return in_greenlet()


def sleep(seconds: float) -> None:
    """Stand in for `time.sleep`.

    Raises:
        NotSimulated: It was called in the event loop itself.
    """
    pause = asyncio.sleep(seconds)
    try:
        await_only(pause)
    except MissingGreenlet:
        pause.close()
        raise NotSimulated(
            "time.sleep blocks the event loop: await asyncio.sleep instead, or make the handler "
            "a plain function"
        ) from None
