"""How a command ends: one line on stderr and an exit code, never a traceback."""

import asyncio
import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

import click
from grpc import StatusCode

from jobledger_client.errors import InternalError, InvalidField, JobledgerError

EXIT_CODES: Final = """\b
Exit codes:
    0  done; every watched job COMPLETED
    1  a watched job ended as FAILED
    2  wrong usage, or the service refused an argument
    3  a watched job ended as PARTIAL
    4  no such job for this user
    5  the job's state, or an earlier request, speaks against it
    6  the service is not available, overloaded or too slow
    7  access denied
   70  a bug
  130  interrupted
  141  whoever read the output left
  143  terminated
"""

FAILED_JOB, USAGE, PARTIAL_JOB, NOT_FOUND, REFUSED, UNAVAILABLE, DENIED = 1, 2, 3, 4, 5, 6, 7
BUG, INTERRUPTED, READER_LEFT, TERMINATED = 70, 130, 141, 143

_BY_STATUS: Final = {
    StatusCode.INVALID_ARGUMENT: USAGE,
    StatusCode.OUT_OF_RANGE: USAGE,
    StatusCode.NOT_FOUND: NOT_FOUND,
    StatusCode.FAILED_PRECONDITION: REFUSED,
    StatusCode.ABORTED: REFUSED,
    StatusCode.ALREADY_EXISTS: REFUSED,
    StatusCode.UNAVAILABLE: UNAVAILABLE,
    StatusCode.DEADLINE_EXCEEDED: UNAVAILABLE,
    StatusCode.RESOURCE_EXHAUSTED: UNAVAILABLE,
    StatusCode.PERMISSION_DENIED: DENIED,
    StatusCode.UNAUTHENTICATED: DENIED,
}


class ReaderLeftError(Exception):
    """Whoever reads the output has had enough: `jobledger list | head`.

    An exception of our own, because click would turn a BrokenPipeError into
    exit code 1, which means a failed job here.
    """


class TerminatedError(Exception):
    """A command that has no end of its own was asked to end, by SIGTERM."""


def run(command: click.Command) -> int:
    """Run a command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        _accept_every_letter(stream)
    try:
        code = command.main(standalone_mode=False)
        flush()
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except ReaderLeftError:
        # Else Python complains at exit that it cannot flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_LEFT
    except TerminatedError:
        return TERMINATED
    except ModuleNotFoundError:
        raise
    except Exception as error:  # noqa: BLE001
        message, code = _verdict(error)
        print("error:", " ".join(message.split()), file=sys.stderr)  # noqa: T201
        return code
    return code if isinstance(code, int) else 0


def write(line: str) -> None:
    """Write one line of output."""
    try:
        sys.stdout.write(line + "\n")
    except BrokenPipeError:
        raise ReaderLeftError from None


def flush() -> None:
    """Hand what was written to the reader."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderLeftError from None


@contextmanager
def stoppable() -> Iterator[None]:
    """Run a block of the current task that only others can end.

    Raises TerminatedError on SIGTERM, and ReaderLeftError when whoever reads a pipe
    leaves: with little to write it would be noticed late, or never.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    reasons: list[Exception] = []

    def stop(reason: Exception) -> None:
        reasons.append(reason)
        if task is not None:
            task.cancel()

    output = sys.stdout.fileno()
    piped = stat.S_ISFIFO(os.fstat(output).st_mode)
    loop.add_signal_handler(signal.SIGTERM, stop, TerminatedError())
    if piped:
        # The writing end of a pipe is never readable, but for the error.
        loop.add_reader(output, stop, ReaderLeftError())
    try:
        yield
    except asyncio.CancelledError:
        if not reasons:
            raise
        raise reasons[0] from None
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        if piped:
            loop.remove_reader(output)


def _accept_every_letter(stream: TextIO) -> None:
    # A terminal that cannot show a letter is no reason to fail.
    stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]


def _verdict(error: Exception) -> tuple[str, int]:
    """Say what went wrong, and with which code to exit."""
    match error:
        case click.ClickException():
            return error.format_message(), USAGE
        case InvalidField(violations=violations) if violations:
            return "; ".join(f"{field}: {words}" for field, words in violations), USAGE
        case InternalError(correlation_id=str(correlation_id)):
            return f"{error} (correlation id {correlation_id})", BUG
        case JobledgerError():
            return str(error), _BY_STATUS.get(error.code, BUG)
        case ValueError():
            return str(error), USAGE
    return f"internal: {type(error).__name__}: {error}", BUG
