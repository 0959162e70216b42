"""A program for each job, in any language: the protocol of docs/guides/worker-programs.md.

The job goes in as JSON; lines of JSON come out, and an exit code.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from jobledger.cli.render import to_json
from jobledger.worker.job import ClaimedJob
from jobledger.worker.outcomes import (
    MAX_MESSAGE,
    Completed,
    Failed,
    Outcome,
    Partial,
    clean_message,
)

PARTIAL_EXIT: Final = 3
RETRYABLE_EXIT: Final = 75
"""EX_TEMPFAIL of sysexits.h: another attempt may succeed."""
KILL_AFTER: Final = 10.0
"""Seconds between SIGTERM and SIGKILL."""

# A result of 256 KiB, each character escaped.
MAX_LINE: Final = 2 * 1024 * 1024
CHUNK: Final = 65536
MESSAGE_LINES: Final = 10
MAX_PROGRESS: Final = 100
SHOWN: Final = 100
"""Characters of a wrong value in an error."""
# After the program has exited, while something that it started still holds its output open.
LAST_WORDS: Final = 1.0


class Program:
    """Runs a command for each job; a handler for Worker.

    Args:
        command: the program and its arguments.
        worker_id: the worker's.
        prefixed: whether each line that a program writes for people starts with the job's id.
        sends_output: whether what it writes for people is the job's output, too.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        worker_id: str = "",
        prefixed: bool = False,
        sends_output: bool = True,
    ) -> None:
        self._command = command
        self._worker_id = worker_id
        self._prefixed = prefixed
        self._sends_output = sends_output

    async def handle(self, job: ClaimedJob) -> Outcome:
        """Run the command for a job."""
        loop = asyncio.get_running_loop()
        output = _Output(f"{job.id} | ".encode() if self._prefixed else b"")
        transport, running = await loop.subprocess_exec(
            lambda: _Running(MAX_LINE, loop, output, sends_output=self._sends_output),
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **_environment(job, self._worker_id)},
            # A process group of its own, so that all of it can be ended.
            start_new_session=True,
        )
        try:
            async with asyncio.TaskGroup() as group:
                feed = group.create_task(running.feed(job))
                readers = {
                    group.create_task(running.listen(job)),
                    group.create_task(running.relay(job)),
                }
                await running.exited.wait()
                if held := await running.last_words(readers):
                    running.signal(signal.SIGKILL)
                    await asyncio.wait(held, timeout=LAST_WORDS)
                    running.close_output()
                feed.cancel()
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            await running.end()
            output.flush()
            transport.close()
        return outcome_of(transport.get_returncode() or 0, running.result, running.tail)


def _environment(job: ClaimedJob, worker_id: str) -> dict[str, str]:
    """Return the variables that name a job to its program."""
    snapshot = job.snapshot
    named = {
        "JOBLEDGER_JOB_ID": snapshot.id,
        "JOBLEDGER_JOB_TYPE": snapshot.job_type,
        "JOBLEDGER_ATTEMPT": str(snapshot.attempt),
        "JOBLEDGER_MAX_ATTEMPTS": str(snapshot.retry_policy.max_attempts),
        "JOBLEDGER_USER_ID": snapshot.user_id,
        "JOBLEDGER_WORKER_ID": worker_id,
    }
    # As OpenTelemetry passes a trace on to a process.
    return named | ({"TRACEPARENT": snapshot.traceparent} if snapshot.traceparent else {})


class _Running(asyncio.subprocess.SubprocessStreamProtocol):
    """One program, running.

    Not asyncio's own Process, whose `wait` also waits for any other process that holds the
    program's output open.
    """

    def __init__(
        self, limit: int, loop: asyncio.AbstractEventLoop, output: "_Output", *, sends_output: bool
    ) -> None:
        super().__init__(limit, loop)
        self._output = output
        self._sends_output = sends_output
        # What was read, and how much of it is not processed yet.
        self._read = 0
        self._processing = 0
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
        """Write the job to its stdin and close that. It need not read it."""
        assert self.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.stdin.write(to_json(job.snapshot).encode() + b"\n")
            await self.stdin.drain()
        self.stdin.close()

    async def listen(self, job: ClaimedJob) -> None:
        """Read its stdout: report, link assets, keep the last result."""
        while line := await self._line():
            with self._process():
                await self._take(job, line)

    async def _take(self, job: ClaimedJob, line: bytes) -> None:
        value = _object(line)
        if value is not None and _is_report(value):
            if await _report(job, **value):
                return
        elif value is not None and value.keys() == {"asset"} and isinstance(value["asset"], dict):
            await job.add_asset(**{"asset_type": "", **value["asset"]})
            return
        elif value is not None:
            self.result = value
            return
        self._output.write_line(line)
        await self._send(job, line)

    async def relay(self, job: ClaimedJob) -> None:
        """Pass its stderr on; keep the end of it."""
        assert self.stderr is not None  # noqa: S101
        rest = b""
        while chunk := await self.stderr.read(CHUNK):
            with self._process():
                self._output.write(chunk)
                self.tail = (self.tail + chunk)[-CHUNK:]
                # Whole lines, between those of stdout. A bar of progress ends its with a return.
                rest += chunk
                end = max(rest.rfind(b"\n"), rest.rfind(b"\r")) + 1
                if not end and len(rest) > CHUNK:
                    end = len(rest)
                await self._send(job, rest[:end])
                rest = rest[end:]
        await self._send(job, rest)

    async def _send(self, job: ClaimedJob, text: bytes) -> None:
        if self._sends_output and text:
            await job.write(text)

    @contextlib.contextmanager
    def _process(self) -> Iterator[None]:
        self._read += 1
        self._processing += 1
        try:
            yield
        finally:
            self._processing -= 1

    async def last_words(self, readers: Collection[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
        """Wait until its output is read; return who waits for more, which may never come."""
        held = set(readers)
        while held:
            before = self._read
            _, held = await asyncio.wait(held, timeout=LAST_WORDS)
            if not self._processing and self._read == before:
                break
        return held

    def close_output(self) -> None:
        """Stop reading its output; what was read is still processed."""
        for stream in (self.stdout, self.stderr):
            assert stream is not None  # noqa: S101
            stream.feed_eof()

    async def end(self) -> None:
        """Stop it and what it started: SIGTERM, and SIGKILL after a while or when cancelled."""
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
        # No other group can have this number while any process of the group exists; without one,
        # the signal reaches nothing.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)

    async def _line(self) -> bytes:
        assert self.stdout is not None  # noqa: S101
        try:
            return await self.stdout.readline()
        except ValueError:
            raise ValueError(f"a line of more than {MAX_LINE} bytes on stdout") from None


def outcome_of(code: int, result: dict[str, Any] | None, stderr: bytes) -> Outcome:
    """Return the outcome of a job whose program exited with this code; negative: a signal."""
    words = last_lines(stderr)
    if code == 0:
        return Completed(result)
    if code == PARTIAL_EXIT:
        return Partial(result, words, f"EXIT_{code}" if words else "")
    if code > 0:
        retryable = code == RETRYABLE_EXIT
        return Failed(
            words or f"exit code {code}", f"EXIT_{code}", result=result, retryable=retryable
        )
    try:
        name = signal.Signals(-code).name.removeprefix("SIG")
    except ValueError:
        name = str(-code)
    # As the process of a Python handler that dies: memory may suffice at another time.
    return Failed(words or f"ended by SIG{name}", f"SIGNAL_{name}", result=result, retryable=True)


def last_lines(stderr: bytes) -> str:
    """Return the last lines that a program wrote, at most ten: the message of the error."""
    lines = stderr.decode("utf-8", "replace").splitlines()
    kept = [line.rstrip() for line in lines if line.strip()][-MESSAGE_LINES:]
    while len(kept) > 1 and len("\n".join(kept)) > MAX_MESSAGE:
        kept.pop(0)
    return clean_message("\n".join(kept))


def _is_report(value: dict[str, Any]) -> bool:
    known = not value.keys() - {"progress", "message", "checkpoint"}
    return known and ("progress" in value or isinstance(value.get("checkpoint"), dict))


async def _report(
    job: ClaimedJob, *, progress: object = 0, message: object = None, checkpoint: object = None
) -> bool:
    """Report what a line says; return whether its checkpoint has the right type.

    Raises:
        ValueError: `progress` is out of range, or no number, or `message` is no text.
    """
    if isinstance(progress, bool) or not isinstance(progress, int | float):
        raise ValueError(f"progress: {_shown(progress)} is not a number")  # noqa: TRY004
    if not 0 <= progress <= MAX_PROGRESS:
        raise ValueError(f"progress: {_shown(progress)} is not from 0 to {MAX_PROGRESS}")
    if not isinstance(message, str | None):
        raise ValueError(f"message: {_shown(message)} is not a text")  # noqa: TRY004
    if not isinstance(checkpoint, dict | None):
        return False
    await job.progress(progress, message, checkpoint=checkpoint)
    return True


def _shown(value: object) -> str:
    return f"{json.dumps(value):.{SHOWN}}"


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class _Output:
    """Passes on to stderr what a program writes for people.

    With a prefix it does so in whole lines, so that those of several programs do not mix.
    """

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._line = b""

    def write(self, text: bytes) -> None:
        if not self._prefix:
            _to_stderr(text)
            return
        *lines, self._line = (self._line + text).split(b"\n")
        for line in lines:
            self.write_line(line)
        if len(self._line) > CHUNK:
            self.flush()

    def write_line(self, line: bytes) -> None:
        line = line.removesuffix(b"\n")
        cut = b" [...]" if len(line) > CHUNK else b""
        _to_stderr(self._prefix + line[:CHUNK] + cut + b"\n")

    def flush(self) -> None:
        """Write the line that has no end yet."""
        if self._line:
            self.write_line(self._line)
            self._line = b""


def _to_stderr(text: bytes) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.buffer.write(text)
        sys.stderr.buffer.flush()
