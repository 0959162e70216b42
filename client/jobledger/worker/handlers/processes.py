"""Handlers that hold the GIL, each job in a process: `executor="process"`.

A process runs one job at a time and is used again for the next. A thread of the worker represents
the process: it makes the handler's calls, and answers whether to stop. So to the worker a handler
in a process is a plain function that can also be killed. A ProcessPoolExecutor breaks when one of
its processes is killed, and fails the jobs of all others.
"""

import asyncio
import logging
import multiprocessing
import pickle
import signal
from collections.abc import Callable
from typing import Any, Final

from jobledger.core.models import Job
from jobledger.worker.handlers.process_main import ENDS, serve
from jobledger.worker.handlers.threads import BlockingJob
from jobledger.worker.job import JobFacts, run_state

STOP: Final = 5.0
"""Seconds that an idle process has to exit."""

# Never a fork: gRPC's threads would not exist in it.
_context = multiprocessing.get_context("spawn")


class ProcessDied(Exception):
    """The process of a handler ended before the handler returned."""


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
        except (EOFError, OSError):
            raise ProcessDied(f"the handler's process {child.last_words()}") from None
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
        """Pass the job to an idle process, or to a new one if that has died."""
        while True:
            fresh = not self._idle
            child = _Child() if fresh else self._idle.pop()
            self._busy[job.id, job.attempt] = child
            try:
                child.begin(pickle.dumps(self._function), job.snapshot)
            except (EOFError, OSError):
                if fresh:
                    del self._busy[job.id, job.attempt]
                    raise ProcessDied(f"the handler's process {child.last_words()}") from None
            else:
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
        self._process = _context.Process(
            target=serve, args=(theirs, level), name="jobledger-handler"
        )
        self._process.start()
        theirs.close()

    def begin(self, function: bytes, job: Job) -> None:
        """Pass a job to the process; the handler has not started unless this returns."""
        self._connection.send((function, job))
        self._receive()  # that it has

    def run(self, job: BlockingJob) -> tuple[str, Any]:
        """Make the handler's calls until it has ended; return how."""
        while True:
            kind, value = self._receive()
            if kind in ENDS:
                return kind, value
            answer = _call(job, kind, value)
            self._connection.send((*answer, run_state(job).cancel_reason))

    def _receive(self) -> tuple[str, Any]:
        while True:
            kind, value = self._connection.recv()
            if kind != "log":
                return kind, value
            logging.getLogger(value.name).handle(value)

    def last_words(self) -> str:
        """Say how it ended."""
        self._process.join()
        code = self._process.exitcode or 0
        if code >= 0:
            return f"exited with {code}"
        return f"was ended by {signal.Signals(-code).name}"

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
