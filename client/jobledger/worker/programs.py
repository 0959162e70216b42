"""Runs a program for a handler, and ends it with the handler."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

CHUNK: Final = 64 * 1024
CHECK: Final = 1.0
"""Seconds between two looks whether to stop, while a program writes nothing."""
KILL_AFTER: Final = 10.0
"""Seconds between SIGTERM and SIGKILL."""


class RunningProgram:
    """A program that runs.

    Args:
        process: the program, in a process group of its own, with its output in a pipe.
        stopped: whether the handler has to stop.
    """

    def __init__(self, process: asyncio.subprocess.Process, stopped: Callable[[], bool]) -> None:
        self._process = process
        self._stopped = stopped

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what it writes, as it comes. Raises CancelledError if the handler has to stop."""
        assert self._process.stdout is not None  # noqa: S101
        while True:
            try:
                async with asyncio.timeout(CHECK):
                    chunk = await self._process.stdout.read(CHUNK)
            except TimeoutError:
                chunk = None
            if self._stopped():
                raise asyncio.CancelledError
            if chunk is not None:
                if not chunk:
                    return
                yield chunk

    async def exit_code(self) -> int:
        """Wait for its end; return the exit code, or the negative number of a signal."""
        return await self._process.wait()


@contextlib.asynccontextmanager
async def running(
    command: Sequence[str],
    stopped: Callable[[], bool],
    *,
    cwd: str | Path | None,
    env: Mapping[str, str] | None,
) -> AsyncIterator[RunningProgram]:
    """Run a program. If it runs at the end of the block, end it and what it has started."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=cwd,
        env=env,
        start_new_session=True,
    )
    try:
        yield RunningProgram(process, stopped)
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    _signal(process, signal.SIGTERM)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KILL_AFTER):
                await process.wait()
    finally:
        _signal(process, signal.SIGKILL)
        await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    # Without any process of the group, the signal reaches nothing.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
