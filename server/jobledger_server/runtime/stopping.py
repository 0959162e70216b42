"""Ends work when the server is asked to stop."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Stopped(Exception):
    """The server was asked to stop while it started."""


async def unless_stopped(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    """Do the work. Cancels it, and raises Stopped, as soon as `stop` is set."""
    tasks = [asyncio.create_task(work), asyncio.create_task(stop.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise Stopped
        await tasks[0]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
