"""Handlers that hold the GIL, each job in a process: `executor="process"`.

A process runs one job at a time and is used again for the next. A thread of the worker represents
the process: it makes the handler's calls, and answers whether to stop. So to the worker a handler
in a process is a plain function that can also be killed. A ProcessPoolExecutor breaks when one of
its processes is killed, and fails the jobs of all others.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterator
from typing import Any, Final

from jobledger.core.models import Job
from jobledger.worker.handlers.process_main import ENDS, serve
from jobledger.worker.handlers.threads import BlockingJob
from jobledger.worker.job import JobFacts, run_state

START: Final = 60.0
"""Seconds that a process has to import the program and be ready for its first job."""

STOP: Final = 5.0
"""Seconds that an idle process has to exit."""

NAME: Final = "jobledger-handler"

GUARD: Final = (
    "the program runs the worker while it is imported: call run_sync() or asyncio.run() below "
    'if __name__ == "__main__":'
)

# Never a fork: gRPC's threads would not exist in it.
_context = multiprocessing.get_context("spawn")


class ProcessDied(Exception):
    """The process of a handler ended before the handler returned, as it does out of memory."""


def refuse_in_handler_process() -> None:
    """Raise RuntimeError in a process that was started for a handler.

    Such a process imports the main module of the program, and would become a second worker.
    """
    if multiprocessing.current_process().name == NAME:
        raise RuntimeError(f"run: this process was started for a handler, and {GUARD}")


class Processes:
    """The processes of one type of job: as many as run at once.

    Args:
        function: the handler, at the top of a module that the processes can import.
    """

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function
        self._idle: list[_Child] = []
        self._busy: dict[tuple[str, int], _Child] = {}
        """By the job's id and the attempt: a lost attempt may still run during the next one."""

    def check(self) -> None:
        """Raise TypeError if processes cannot import the function."""
        try:
            pickle.dumps(self._function)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"executor: a process cannot import {self._function!r}; "
                f"define it at the top of a module ({error})"
            ) from None

    def start(self) -> None:
        """Start the first process. Blocks while it imports the program.

        Raises:
            RuntimeError: it was not ready in time, or ended; the message says what to write.
        """
        child = _Child()
        try:
            child.wait_until_ready()
        except ProcessDied as error:
            raise RuntimeError(f"executor: {error} before its first job. Perhaps {GUARD}") from None
        self._idle.append(child)

    def run(self, job: BlockingJob) -> object:
        """Run a job in a process and return what the handler returned.

        Raises:
            BaseException: what the handler raised, or a copy if that cannot be pickled.
            CancelledError: it was stopped.
            ProcessDied: the process ended.
        """
        child = self._begin(job)
        kind, value = "", None
        try:
            kind, value = child.run(job)
        finally:
            del self._busy[job.id, job.attempt]
            if kind:
                self._idle.append(child)
            else:
                child.kill()
        match kind:
            case "returned":
                return value
            case "raised":
                raise value.exception()
            case _:
                raise asyncio.CancelledError

    def _begin(self, job: BlockingJob) -> "_Child":
        """Pass the job to an idle process, or to a new one."""
        key, function = (job.id, job.attempt), pickle.dumps(self._function)
        while self._idle:
            child = self._busy[key] = self._idle.pop()
            with contextlib.suppress(ProcessDied):  # while it was idle
                child.begin(function, job.snapshot)
                return child
        child = self._busy[key] = _Child()
        try:
            child.wait_until_ready()
            child.begin(function, job.snapshot)
        except ProcessDied:
            del self._busy[key]
            raise
        return child

    def kill(self, job: JobFacts) -> None:
        """Kill the process of a job whose handler does not stop."""
        if (child := self._busy.get((job.id, job.attempt))) is not None:
            child.kill()

    def close(self) -> None:
        """End all processes. Blocks for a moment."""
        for child in self._idle:
            child.close()
        for child in self._busy.values():
            child.kill()


class _Child:
    """One process, as the worker sees it."""

    def __init__(self) -> None:
        self._connection, theirs = _context.Pipe()
        level = logging.getLogger().getEffectiveLevel()
        self._process = _context.Process(target=serve, args=(theirs, level), name=NAME)
        self._process.start()
        theirs.close()

    def wait_until_ready(self) -> None:
        """Wait until it has imported the program.

        If it takes too long it is killed: a main module without a guard may wait for anything.

        Raises:
            ProcessDied: it has ended, or was killed.
        """
        with self._open():
            if self._connection.poll(START):
                self._receive()
                return
        self._process.kill()
        raise ProcessDied(f"the handler's process was not ready within {START:g} s")

    def begin(self, function: bytes, job: Job) -> None:
        """Pass a job to the process; the handler has not started unless this returns.

        Raises:
            ProcessDied: it has ended.
        """
        with self._open():
            self._connection.send((function, job))
            self._receive()  # that it has

    def run(self, job: BlockingJob) -> tuple[str, Any]:
        """Make the handler's calls until it has ended; return how. Raises ProcessDied."""
        with self._open():
            while True:
                kind, value = self._receive()
                if kind in ENDS:
                    return kind, value
                answer = _call(job, kind, value)
                self._connection.send((*answer, run_state(job).cancel_reason))

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        """Raise ProcessDied if the connection is closed: the process has ended, or soon will."""
        try:
            yield
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode or 0
            end = (
                f"exited with {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
            )
            raise ProcessDied(f"the handler's process {end}") from None

    def _receive(self) -> tuple[str, Any]:
        while True:
            kind, value = self._connection.recv()
            if kind != "log":
                return kind, value
            logging.getLogger(value.name).handle(value)

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._connection.close()
        self._process.join(STOP)
        self._process.kill()
        self._process.join()


def _call(job: BlockingJob, name: str, arguments: dict[str, Any]) -> tuple[str, object]:
    """Make a call for the handler in the process; return how it went."""
    try:
        return "returned", getattr(job, name)(**arguments)
    except asyncio.CancelledError:
        return "cancelled", None
    except Exception as error:  # noqa: BLE001
        return "raised", error
