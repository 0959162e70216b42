"""Log lines on their way to standard error: a queue, and the thread that writes them.

A log collector that stalls blocks whatever thread writes to it. The event loop never
writes: lines wait in a bounded queue, and lines that do not fit are counted.
"""

import logging
import os
import select
import time
from contextlib import suppress
from logging.handlers import QueueHandler, QueueListener
from queue import Empty, SimpleQueue
from typing import Any

from jobledger_server.telemetry.library_logs import without_private_data
from jobledger_server.telemetry.rate_limiter import LIMIT_SECONDS, RateLimiter

MAX_LINES = 4096
"""Lines that wait to be written at most. Further lines are lost, and counted."""

LINGER_SECONDS = 0.01
"""How long the thread sleeps when it has been woken. To wake it for each line costs the process
more than the line."""


class LogQueue(QueueHandler):
    """Formats records in the thread that logs, and queues their lines. It never waits.

    Records of libraries lose private data, and events of one kind are rate-limited.
    """

    def __init__(self, formatter: logging.Formatter) -> None:
        self.lines: SimpleQueue[bytes] = SimpleQueue()
        super().__init__(self.lines)
        self.setFormatter(formatter)
        self.lost = 0
        """Lines that did not fit into the queue or could not be written."""
        self._reported = 0
        self._limiter = RateLimiter()

    def prepare(self, record: logging.LogRecord) -> Any:
        """Return the line of a record, or nothing if it will share one."""
        if not f"{record.name}.".startswith("jobledger."):
            record = without_private_data(record)
        elif record.exc_info and record.exc_info[1] is not None:
            record = self._limiter.without_repeated_traceback(record, record.exc_info[1])
        return self._line(record) if self._limiter.admits(record) else b""

    def enqueue(self, line: Any) -> None:
        """Queue a line, or count it if too many wait."""
        if line and self.lines.qsize() >= MAX_LINES:
            self.lost += 1
        elif line:
            self.lines.put(line)

    def put_due(self, *, closing: bool = False) -> float | None:
        """Queue what waits for its time, and the number of lost lines.

        Returns:
            After how many seconds to do it again; None: after the next line.
        """
        with self.lock:  # type: ignore[union-attr]
            for record in self._limiter.due(closing=closing):
                self.enqueue(self._line(record))
            if self.lost > self._reported:
                fields = {"lost": self.lost - self._reported}
                self._reported = self.lost
                name = "jobledger.log"
                lost = logging.getLogger(name).makeRecord(
                    name, logging.WARNING, "", 0, "log_lines_lost", (), None, extra=fields
                )
                self.lines.put(self._line(lost))
            return LIMIT_SECONDS if self._limiter.active else None

    def count_unwritten(self) -> None:
        """Count a line that cannot be written. A line that says so could not be either."""
        with self.lock:  # type: ignore[union-attr]
            self.lost += 1
            self._reported += 1

    def _line(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode() + b"\n"


class LogWriter(QueueListener):
    """Writes the lines of a queue to a file, in a thread."""

    def __init__(self, source: LogQueue, file: int) -> None:
        super().__init__(source.lines)
        self._source = source
        self._file = file

    def dequeue(self, block: bool) -> Any:  # noqa: FBT001
        """Return the next line, or None at the end."""
        lines = self._source.lines
        while lines.empty():
            seconds = self._source.put_due()
            with suppress(Empty):
                line = lines.get(block, seconds)
                time.sleep(LINGER_SECONDS)
                return line
        return lines.get()

    def handle(self, line: Any) -> None:
        """Write a line. A pipe takes it whole, so that several processes can write to one."""
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[os.write(self._file, rest) :]
            except BlockingIOError:  # another process that shares the file made it non-blocking
                select.select((), (self._file,), ())
            except OSError:
                self._source.count_unwritten()
                break

    def stop(self) -> None:
        """Write all lines, however long that takes, and end the thread."""
        self._source.put_due(closing=True)
        super().stop()
