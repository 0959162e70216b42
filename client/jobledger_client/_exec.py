"""A program per job, in any language: the protocol of docs/workers.md.

The job goes in as JSON; lines of JSON come out, and an exit code.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final

from jobledger_client._claimed import ClaimedJob
from jobledger_client._outcome import (
    MAX_MESSAGE,
    Completed,
    Failed,
    Outcome,
    Partial,
    clean_message,
)
from jobledger_client._render import to_json

PARTIAL_EXIT: Final = 3
KILL_AFTER: Final = 10.0
"""Seconds between SIGTERM and SIGKILL."""

# A result of 256 KiB, each letter escaped.
MAX_LINE: Final = 2 * 1024 * 1024
CHUNK: Final = 65536
MESSAGE_LINES: Final = 10
# Where a program has ended and something that it started still holds its output.
LAST_WORDS: Final = 1.0

_ASSET_FIELDS: Final = {"asset_type": str, "url": str, "storage_path": str, "file_size": int}


class Program:
    """Runs a command for each job; a handler for Worker."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command

    async def handle(self, job: ClaimedJob) -> Outcome:
        loop = asyncio.get_running_loop()
        transport, running = await loop.subprocess_exec(
            lambda: _Running(MAX_LINE, loop),
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # A process group of its own, so that all of it can be ended.
            start_new_session=True,
        )
        try:
            async with asyncio.TaskGroup() as group:
                feed = group.create_task(running.feed(job))
                output = {
                    group.create_task(running.listen(job)),
                    group.create_task(running.relay()),
                }
                await running.exited.wait()
                _, held = await asyncio.wait(output, timeout=LAST_WORDS)
                if held:
                    running.signal(signal.SIGKILL)
                    await asyncio.wait(held, timeout=LAST_WORDS)
                    running.hear_no_more()
                feed.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            await running.end()
            transport.close()
        return outcome_of(transport.get_returncode() or 0, running.result, running.tail)


class _Running(asyncio.subprocess.SubprocessStreamProtocol):
    """One program, running.

    Not asyncio's own Process, whose `wait` also waits for whoever else holds the
    program's output.
    """

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit, loop)
        self.exited = asyncio.Event()
        self.result: dict[str, Any] | None = None
        self.tail = b""
        self._pid = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.SubprocessTransport)  # noqa: S101
        self._pid = transport.get_pid()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()

    async def feed(self, job: ClaimedJob) -> None:
        """Give it the job, then the end of its input. It need not read it."""
        assert self.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.stdin.write(to_json(job.snapshot).encode() + b"\n")
            await self.stdin.drain()
        self.stdin.close()

    async def listen(self, job: ClaimedJob) -> None:
        """Do what its lines say; keep the last that is a result."""
        while line := await self._line():
            value = _object(line)
            if value is None:
                _to_stderr(line)
            elif "progress" in value and not value.keys() - {"progress", "message"}:
                await _progress(job, value, line)
            elif value.keys() == {"asset"} and isinstance(value["asset"], dict):
                await job.add_asset(**_asset(value["asset"]))
            else:
                self.result = value

    async def relay(self) -> None:
        """Pass its stderr on; keep the end of it."""
        assert self.stderr is not None  # noqa: S101
        while chunk := await self.stderr.read(CHUNK):
            _to_stderr(chunk)
            self.tail = (self.tail + chunk)[-CHUNK:]

    def hear_no_more(self) -> None:
        """End its output where it is: what was read is still dealt with."""
        for stream in (self.stdout, self.stderr):
            assert stream is not None  # noqa: S101
            stream.feed_eof()

    async def end(self) -> None:
        """Leave nothing of it: ask it to go; after a while, or when told again, kill it."""
        if self.exited.is_set():
            return
        self.signal(signal.SIGTERM)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KILL_AFTER):
                    await self.exited.wait()
        finally:
            self.signal(signal.SIGKILL)
            await self.exited.wait()

    def signal(self, number: signal.Signals) -> None:
        # Nobody else can have this number: the group lives as long as one in it,
        # and where nobody is left there is no such group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    async def _line(self) -> bytes:
        assert self.stdout is not None  # noqa: S101
        try:
            return await self.stdout.readline()
        except ValueError:
            raise ValueError(f"a line of more than {MAX_LINE} bytes on stdout") from None


def outcome_of(code: int, result: dict[str, Any] | None, stderr: bytes) -> Outcome:
    """Say how a job ends whose program ended so. A negative code is a signal."""
    words = last_lines(stderr)
    if code == 0:
        return Completed(result)
    if code == PARTIAL_EXIT:
        return Partial(result, words, f"EXIT_{code}" if words else "")
    if code > 0:
        return Failed(words or f"exit code {code}", f"EXIT_{code}", result=result)
    try:
        name = signal.Signals(-code).name.removeprefix("SIG")
    except ValueError:
        name = str(-code)
    return Failed(words or f"ended by SIG{name}", f"SIGNAL_{name}", result=result)


def last_lines(stderr: bytes) -> str:
    """Pick the message from the end of what a program wrote: its last lines, ten at most."""
    lines = stderr.decode("utf-8", "replace").splitlines()
    kept = [line.rstrip() for line in lines if line.strip()][-MESSAGE_LINES:]
    while len(kept) > 1 and len("\n".join(kept)) > MAX_MESSAGE:
        kept.pop(0)
    return clean_message("\n".join(kept))


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


async def _progress(job: ClaimedJob, given: dict[str, Any], line: bytes) -> None:
    percent, message = given["progress"], given.get("message")
    if isinstance(percent, bool) or not isinstance(percent, int | float):
        _to_stderr(line)
        return
    await job.progress(min(max(percent, 0), 100), message if isinstance(message, str) else None)


def _asset(given: dict[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        if name not in _ASSET_FIELDS:
            raise ValueError(f"asset: {name!r} is none of {', '.join(_ASSET_FIELDS)}")
        if type(value) is not _ASSET_FIELDS[name]:
            kind = "string" if _ASSET_FIELDS[name] is str else "whole number"
            raise ValueError(f"asset: {name} is not a {kind}")
    return {"asset_type": "", **given}


def _to_stderr(text: bytes) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.buffer.write(text)
        sys.stderr.buffer.flush()
