"""What goes wrong in a run without a test that looks for it."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from jobledger_server.store import StoreError
from jobledger_world.loop import WorldLoop, current_node

OF_WORKERS = "jobledger.worker", "jobledger.job"
"""The loggers of workers: a handler that fails is the test's business."""

STORE_EVENT = "write_failed"
"""What a server logs as an error, without the exception, if the database refuses to write."""


class Broken(AssertionError):
    """Something has gone wrong in a run that nobody asked for. The message says what."""


class Problems(logging.Handler):
    """Collects errors: of tasks, of callbacks, and what servers log as errors.

    Attributes:
        database_breaks: The database is broken on purpose, so errors of the store are expected.
        found: One text for each problem.
    """

    def __init__(self, loop: WorldLoop) -> None:
        super().__init__(logging.ERROR)
        self.database_breaks = False
        self.found: list[str] = []
        self._loop = loop

    def add(self, text: str, error: BaseException | None = None) -> None:
        """Add a problem."""
        lines = [f"{self._loop.time():.3f} s: {text}"]
        if error is not None:
            lines += traceback.format_exception(error)
        self.found.append("\n".join(lines))

    def text(self) -> str:
        """Return all problems; nothing if there are none."""
        for context in self._loop.errors:
            self.add(str(context["message"]), context.get("exception"))
        self._loop.errors.clear()
        return "\n\n".join(self.found)

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Collect what servers log as errors during the block."""
        log = logging.getLogger("jobledger")
        log.addHandler(self)
        try:
            yield
        finally:
            log.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        node = current_node()
        if record.name in OF_WORKERS or (node is not None and node.state == "dead"):
            return
        error = None if record.exc_info is None else record.exc_info[1]
        if not (self.database_breaks and _is_of_the_store(record, error)):
            name = "a server" if node is None else node.name
            cause = getattr(record, "cause", "")
            self.add(f"{name} has logged {record.getMessage()} {cause}".rstrip(), error)


def _is_of_the_store(record: logging.LogRecord, error: BaseException | None) -> bool:
    return isinstance(error, StoreError) or record.getMessage() == STORE_EVENT
