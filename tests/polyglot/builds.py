"""Builds the programs while the tests of those that are built run.

Builds take processors and tests mostly wait, so they share the time well. All processes of a test
run build: each takes the next program that no other one is building.
"""

import fcntl
import os
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.polyglot.programs import BuildFailed, Program

RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
"""Names the test run, alike in all its processes."""


@contextmanager
def once_in_run(file: Path, *, wait: bool = True) -> Iterator[bool]:
    """Give whether the block is the first one in this run for `file`; one that fails is none.

    Blocks with the same file wait for each other. Without `wait` they raise BlockingIOError.
    """
    with file.open("a+") as done:
        fcntl.flock(done, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        done.seek(0)
        yield done.read() != RUN
        done.truncate(0)
        done.write(RUN)


class Builds:
    """`wait(program)` returns when it is built. `folder` is shared by the processes of the run."""

    def __init__(self, programs: Sequence[Program], folder: Path) -> None:
        self.seconds: dict[str, float] = {}
        """How many seconds each build took that this process made."""
        self._folder = folder
        self._built: set[str] = set()
        self._failure: BuildFailed | None = None
        self._changed = threading.Condition()
        # A daemon: an interrupted run does not wait for what nobody needs any more.
        self._thread = threading.Thread(target=self._build, args=(programs,), daemon=True)
        self._thread.start()

    def wait(self, program: Program) -> None:
        """Raise BuildFailed where this one, or one before it, cannot be built."""
        with self._changed:
            while program.name not in self._built:
                if self._failure is not None:
                    raise self._failure
                self._changed.wait()

    def join(self) -> None:
        """Wait until this process builds nothing."""
        self._thread.join()

    def _build(self, programs: Sequence[Program]) -> None:
        try:
            left = [program for program in programs if not self._make(program, wait=False)]
            for program in left:
                self._make(program, wait=True)
        except BuildFailed as failure:
            with self._changed:
                self._failure = failure
                self._changed.notify_all()

    def _make(self, program: Program, *, wait: bool) -> bool:
        """Build a program unless this run has; False where another process is building it."""
        try:
            with once_in_run(self._folder / program.name, wait=wait) as first:
                if first:
                    started = time.monotonic()
                    program.make()
                    self.seconds[program.name] = time.monotonic() - started
        except BlockingIOError:
            return False
        with self._changed:
            self._built.add(program.name)
            self._changed.notify_all()
        return True
