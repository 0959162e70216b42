"""The transitions of jobs, as servers log them, for the history of a run."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Notes(logging.Handler):
    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        facts = vars(record)
        what = record.getMessage()
        if what == "transition":
            what = f"{facts['from']} -> {facts['to']} by {facts['actor'] or 'the service'}"
        self._note(f"job {facts['job']}, attempt {facts['attempt']}: {what}")


@contextmanager
def noted_transitions(note: Callable[[str], None]) -> Iterator[None]:
    """Note each transition of a job during the block."""
    log = logging.getLogger("jobledger.transition")
    handler, level = _Notes(note), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
