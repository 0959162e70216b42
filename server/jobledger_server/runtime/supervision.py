"""Supervision: a server that can no longer do a part of its work does not live on."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

log = logging.getLogger("jobledger.server")


class ServerFailed(Exception):
    """A part of the server ended by an unexpected error; the log has its traceback."""


class Supervisor:
    """Watches the tasks that serve for as long as the server does.

    `failed` is set when one of them ends by an error: then the server is to drain and
    its process to end, so that its own supervisor starts another.
    """

    def __init__(self) -> None:
        self.failed = asyncio.Event()

    def watch(self, task: asyncio.Task[None] | None) -> None:
        """Log the error that the task ends by, if it does, and have the server end."""
        if task is not None:
            task.add_done_callback(self._ended)

    @asynccontextmanager
    async def running(self, name: str, work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run a task for as long as the block lasts."""
        task = asyncio.create_task(work, name=name)
        self.watch(task)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.error("task_failed", exc_info=error, extra={"task": task.get_name()})
            self.failed.set()
