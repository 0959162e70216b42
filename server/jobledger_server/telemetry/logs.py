"""Structured logs: one JSON object per line, on standard error."""

import json
import logging
import os
import select
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobledger_server.telemetry.library_logs import CountedStderr
from jobledger_server.telemetry.log_writer import LogQueue, LogWriter

MAX_LINE_BYTES = select.PIPE_BUF - 1
"""Bytes of a line without its end. A pipe takes no more at once, and several processes write to it.
"""

CLOSE_SECONDS = 2.0
"""How long the process waits at its end for the last lines to be written."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON: time, level, logger, event, the constant fields, and `extra`.

    What is too long for MAX_LINE_BYTES is cut.

    Args:
        constant: Fields of every line.
    """

    def __init__(self, **constant: Any) -> None:
        super().__init__()
        self._constant = constant

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **self._constant,
        }
        line.update((k, v) for k, v in vars(record).items() if k not in _STANDARD)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        while len(text := _json(line)) > MAX_LINE_BYTES:
            _halve_longest(line)
        return text


def _json(value: object) -> str:
    return json.dumps(value, default=str)  # in ASCII, so its length is its bytes


def _halve_longest(line: dict[str, Any]) -> None:
    """Cut the longest field in half.

    Of a list its first items are left, and its length; of a traceback the end.
    """
    key = max(line, key=lambda each: len(_json(line[each])))
    value = line[key]
    if isinstance(value, Sequence) and not isinstance(value, str):
        line.setdefault(f"{key.removesuffix('s')}_count", len(value))
        line[key] = value[: len(value) // 2]
    else:
        text = str(value)
        half = len(text) // 2
        line[key] = f"...{text[-half:]}" if key == "exception" else f"{text[:half]}..."


@contextmanager
def logging_to_stderr(level: str, **constant: Any) -> Iterator[None]:
    """Log to standard error during the block, then write the queued lines, for two seconds at most.

    Args:
        level: The lowest level of Jobledger's own events. Libraries are logged from WARNING.
        constant: Fields of every line.
    """
    stderr = sys.stderr
    queue = LogQueue(JsonFormatter(**constant))
    writer = LogWriter(queue, stderr.fileno())
    writer.start()
    logging.basicConfig(level=logging.WARNING, handlers=[queue], force=True)
    logging.getLogger("jobledger").setLevel(level.upper())
    sys.stderr = CountedStderr()
    try:
        yield
    finally:
        logging.basicConfig(handlers=[logging.NullHandler()], force=True)
        # If standard error blocks, nothing that is printed later may block the process either.
        sys.stderr = stderr if _stopped(writer) else Path(os.devnull).open("w")  # noqa: SIM115


def _stopped(writer: LogWriter) -> bool:
    """Write the last lines; return whether they were written in time."""
    stopping = threading.Thread(target=writer.stop, daemon=True)
    stopping.start()
    stopping.join(CLOSE_SECONDS)
    return not stopping.is_alive()


def lines_lost() -> int:
    """Return how many lines of this process's log were lost."""
    return sum(each.lost for each in logging.getLogger().handlers if isinstance(each, LogQueue))
