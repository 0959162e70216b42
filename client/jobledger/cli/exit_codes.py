"""How a command exits: one line on stderr and an exit code, never a traceback."""

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

from jobledger.errors import InternalError, InvalidField, JobledgerError, MessageTooLarge

EXIT_CODES: Final = """\b
Exit codes:
    0  success; every watched job is COMPLETED
    1  a watched job is FAILED
    2  wrong usage, or the service refused an argument
    3  a watched job is PARTIAL, and none FAILED
    4  the user has no such job
    5  the job's status, or an earlier request, does not allow it
    6  the service is unavailable, overloaded, too slow or too old
    7  access denied
   70  a bug
   74  the output cannot be written
  130  interrupted, or its question was answered with no
  141  the reader closed the output
  143  terminated
"""

FAILED_JOB, USAGE, PARTIAL_JOB, NOT_FOUND, REFUSED, UNAVAILABLE, DENIED = 1, 2, 3, 4, 5, 6, 7
BUG, OUTPUT, INTERRUPTED, READER_LEFT, TERMINATED = 70, 74, 130, 141, 143

_BY_STATUS: Final = {
    StatusCode.INVALID_ARGUMENT: USAGE,
    StatusCode.OUT_OF_RANGE: USAGE,
    StatusCode.NOT_FOUND: NOT_FOUND,
    StatusCode.FAILED_PRECONDITION: REFUSED,
    StatusCode.ABORTED: REFUSED,
    StatusCode.ALREADY_EXISTS: REFUSED,
    StatusCode.UNAVAILABLE: UNAVAILABLE,
    StatusCode.UNIMPLEMENTED: UNAVAILABLE,
    StatusCode.DEADLINE_EXCEEDED: UNAVAILABLE,
    StatusCode.RESOURCE_EXHAUSTED: UNAVAILABLE,
    StatusCode.PERMISSION_DENIED: DENIED,
    StatusCode.UNAUTHENTICATED: DENIED,
}


class ReaderLeftError(Exception):
    """The reader closed the output, as in `jobledger list | head`.

    An exception of our own, because click would turn a BrokenPipeError into
    exit code 1, which means a failed job here.
    """


class OutputError(Exception):
    """The output cannot be written: the disk is full, for instance."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"cannot write the output: {error.strerror}")


class StoppedError(Exception):
    """A signal stopped a command.

    Attributes:
        exit_code: what to exit with.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


def run(command: click.Command) -> int:
    """Run a command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character is no reason to fail.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    on_terminal = sys.stdout.isatty()
    try:
        code = command.main(standalone_mode=False)
        flush()
    except ReaderLeftError:
        return _reader_left()
    except OutputError as error:
        _discard(sys.stdout)
        print_error(str(error))
        return OUTPUT
    except StoppedError as stopped:
        return stopped.exit_code
    except ModuleNotFoundError:
        raise
    except Exception as error:  # noqa: BLE001
        if on_terminal and not sys.stdout.isatty():  # it was closed, and nobody reads the error
            return _reader_left()
        message, code = verdict(error)
        print_error(message)
        return code
    return code if isinstance(code, int) else 0


def _reader_left() -> int:
    _discard(sys.stdout)
    return READER_LEFT


def _discard(stream: TextIO) -> None:
    # Else Python complains at exit that it cannot flush.
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_error(message: str) -> None:
    """Print one line on stderr."""
    _tell(f"error: {' '.join(message.split())}")


def print_note(message: str) -> None:
    """Print what a person should know, and is no error, on stderr."""
    _tell(f"note: {message}")


def _tell(line: str) -> None:
    """Print a line on stderr. If nobody can read it, the command goes on and exits as without."""
    try:
        click.echo(line, err=True)
    except OSError:
        _discard(sys.stderr)


def drawable() -> bool:
    """Whether the output is a terminal that can move its cursor."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


def write(line: str) -> None:
    """Write one line of output."""
    with _writing():
        sys.stdout.write(line + "\n")


def write_bytes(data: bytes) -> None:
    """Write output as it is."""
    with _writing():
        sys.stdout.flush()
        sys.stdout.buffer.write(data)


def flush() -> None:
    """Send what was written to the reader."""
    with _writing():
        sys.stdout.flush()


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise ReaderLeftError from None
    except OSError as error:
        raise OutputError(error) from None


@contextmanager
def stoppable() -> Iterator[None]:
    """Run a block of the current task that may take any time, and clean up when it is stopped.

    Raises StoppedError on SIGINT and SIGTERM, and ReaderLeftError when the reader closes a pipe:
    with little to write that would be noticed late, or never.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    reasons: list[Exception] = []

    def stop(reason: Exception) -> None:
        reasons.append(reason)
        if task is not None:
            task.cancel()

    output = sys.stdout.fileno()
    piped = stat.S_ISFIFO(os.fstat(output).st_mode)
    codes = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}
    previous = {number: signal.getsignal(number) for number in codes}
    if previous[signal.SIGINT] is signal.SIG_IGN:
        del codes[signal.SIGINT]
    for number, code in codes.items():
        loop.add_signal_handler(number, stop, StoppedError(code))
    if piped:
        # The writing end of a pipe becomes readable only by the error.
        loop.add_reader(output, stop, ReaderLeftError())
    try:
        yield
    except asyncio.CancelledError:
        if not reasons:
            raise
        raise reasons[0] from None
    finally:
        for number in codes:
            loop.remove_signal_handler(number)
            signal.signal(number, previous[number])
        if piped:
            loop.remove_reader(output)


def verdict(error: Exception) -> tuple[str, int]:
    """Return what went wrong, for people, and the exit code."""
    match error:
        case click.ClickException():
            return error.format_message(), USAGE
        case InvalidField(violations=violations) if violations:
            return "; ".join(f"{field}: {words}" for field, words in violations), USAGE
        case InternalError(correlation_id=str(correlation_id)):
            return f"{error} (correlation id {correlation_id})", BUG
        case MessageTooLarge():
            return str(error), USAGE
        case JobledgerError(code=StatusCode.UNIMPLEMENTED):
            return f"the service does not have this, it may be too old: {error}", UNAVAILABLE
        case JobledgerError():
            return str(error), _BY_STATUS.get(error.code, BUG)
        case ValueError():
            return str(error), USAGE
    return f"internal: {type(error).__name__}: {error}", BUG
