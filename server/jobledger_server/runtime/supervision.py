"""Supervision: the server stops if one of its tasks fails."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

log = logging.getLogger("jobledger.server")


class ServerFailed(Exception):
    """A task of the server failed with an unexpected error. The log has its traceback."""


class Supervisor:
    """Supervises the tasks of the server.

    `failed` is set when one of them fails. The server then has to drain and its process to
    exit, so that the supervisor of the process starts a new one.
    """

    def __init__(self) -> None:
        self.failed = asyncio.Event()

    def supervise(self, task: asyncio.Task[None] | None) -> None:
        """If the task fails, log the error and set `failed`."""
        if task is not None:
            task.add_done_callback(self._ended)

    @asynccontextmanager
    async def running(self, **works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run supervised tasks, by name, during the block."""
        tasks = [asyncio.create_task(work, name=name) for name, work in works.items()]
        for task in tasks:
            self.supervise(task)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.error("task_failed", exc_info=error, extra={"task": task.get_name()})
            self.failed.set()
