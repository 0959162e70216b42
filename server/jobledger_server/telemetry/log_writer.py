"""A logging handler whose lines are written by a thread.

A log collector that stalls blocks whatever thread writes to it. The event loop never
writes: lines wait in a bounded queue, and lines that do not fit are counted.
"""

import logging
import os
import select
import threading
import time
from collections import deque

from jobledger_server.telemetry.library_logs import without_private_data
from jobledger_server.telemetry.rate_limiter import LIMIT_SECONDS, RateLimiter

QUEUE_BYTES = 4 * 1024 * 1024
"""Bytes of lines that wait to be written at most. Further lines are lost, and counted."""

LINGER_SECONDS = 0.01
"""Lines that follow within this time are written together. To wake the thread for each line costs
the process several times as much as the line."""

CLOSE_SECONDS = 2.0
"""How long the process waits at its end for the last lines to be written."""


class LogWriter(logging.Handler):
    """Formats records in the thread that logs, and writes them in its own thread.

    Records of libraries lose private data, and events of one kind are rate-limited.
    """

    def __init__(self, file: int, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lost = 0
        """Lines that did not fit into the queue or could not be written."""
        self._reported = 0
        self._file = file
        self._lines: deque[bytes] = deque()
        # Each of the two is written by one thread only.
        self._bytes_queued = self._bytes_written = 0
        self._limiter = RateLimiter()
        self._closing = False
        self._wake_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if not f"{record.name}.".startswith("jobledger."):
                record = without_private_data(record)
            elif record.exc_info and record.exc_info[1] is not None:
                record = self._limiter.without_repeated_traceback(record, record.exc_info[1])
            if self._limiter.admits(record):
                self._put(record)
        except Exception:  # noqa: BLE001
            self.handleError(record)

    def drain(self) -> bool:
        """Stop after the queued lines; return whether they were written in time."""
        self._closing = True
        self._wake_up.set()
        self._thread.join(CLOSE_SECONDS)
        return not self._thread.is_alive()

    def _put(self, record: logging.LogRecord, *, always: bool = False) -> None:
        line = self.format(record).encode() + b"\n"
        if self._bytes_queued - self._bytes_written + len(line) > QUEUE_BYTES and not always:
            self.lost += 1
            return
        self._bytes_queued += len(line)
        self._lines.append(line)
        if not self._wake_up.is_set():
            self._wake_up.set()

    def _run(self) -> None:
        while True:
            woken = self._wake_up.wait(LIMIT_SECONDS if self._limiter.active else None)
            if woken and not self._closing:
                time.sleep(LINGER_SECONDS)
            self._wake_up.clear()
            closing = self._closing
            self._put_due(closing=closing)
            while self._lines:
                self._write()
                self._put_due(closing=closing)
            if closing:
                return

    def _put_due(self, *, closing: bool) -> None:
        """Queue merged records that are due, and the number of lost lines once there is space."""
        with self.lock:  # type: ignore[union-attr]
            for record in self._limiter.due(closing=closing):
                self._put(record)
            has_space = self._bytes_queued - self._bytes_written < QUEUE_BYTES // 2
            if self.lost > self._reported and (has_space or closing):
                fields = {"lost": self.lost - self._reported}
                self._reported = self.lost
                name = "jobledger.log"
                lost = logging.getLogger(name).makeRecord(
                    name, logging.WARNING, "", 0, "log_lines_lost", (), None, extra=fields
                )
                self._put(lost, always=True)

    def _write(self) -> None:
        """Write the first lines: as many whole ones as a pipe takes atomically.

        Several processes may write to the same pipe.
        """
        lines = [self._lines.popleft()]
        size = len(lines[0])
        while self._lines and size + len(self._lines[0]) <= select.PIPE_BUF:
            lines.append(self._lines.popleft())
            size += len(lines[-1])
        data = memoryview(b"".join(lines))
        while data:
            try:
                data = data[os.write(self._file, data) :]
            except BlockingIOError:  # another process that shares the file made it non-blocking
                select.select((), (self._file,), ())
            except OSError:
                with self.lock:  # type: ignore[union-attr]
                    self.lost += len(lines)
                break
        self._bytes_written += size
