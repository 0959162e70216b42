"""Builds the programs one after the other while the tests of those that are built run.

Builds take processors and tests mostly wait, so they share the time well.
"""

import threading
import time
from collections.abc import Sequence

from tests.polyglot.programs import BuildFailed, Program


class Builds:
    """`wait(program)` returns when it is built."""

    def __init__(self, programs: Sequence[Program]) -> None:
        self.seconds: dict[str, float] = {}
        """How many seconds each build took."""
        self._failure: BuildFailed | None = None
        self._changed = threading.Condition()
        # A daemon: an interrupted run does not wait for what nobody needs any more.
        threading.Thread(target=self._build, args=(programs,), daemon=True).start()

    def wait(self, program: Program) -> None:
        """Raise BuildFailed where this one, or one before it, cannot be built."""
        with self._changed:
            while program.name not in self.seconds:
                if self._failure is not None:
                    raise self._failure
                self._changed.wait()

    def _build(self, programs: Sequence[Program]) -> None:
        for program in programs:
            started = time.monotonic()
            try:
                program.make()
            except BuildFailed as failure:
                with self._changed:
                    self._failure = failure
                    self._changed.notify_all()
                return
            with self._changed:
                self.seconds[program.name] = time.monotonic() - started
                self._changed.notify_all()
