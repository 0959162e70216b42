"""Structured logs: one JSON object a line, on standard error, written by a thread of its own.

A log collector that stalls blocks the thread that writes to it. The event loop never
writes: lines wait in a bounded queue, and those that do not fit are counted.

Libraries log what callers sent them, tokens included, and tracebacks of what callers did.
Of their messages only the constant part is kept, and of each kind one line a second.
"""

import io
import json
import logging
import os
import re
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

QUEUE_BYTES = 4 * 1024 * 1024
"""How many bytes of lines wait to be written. Lines beyond are lost, and counted."""

LIMITED_SECONDS = 1.0
"""Rate-limited events of one kind share a line in this time."""

MAX_KINDS = 64
"""Kinds of rate-limited events that are distinguished. The rest are one kind."""

CLOSE_SECONDS = 2.0
"""How long the end of the process waits until the last lines are written."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_CONSTANT = re.compile(r"\w+(?: \w+)*", re.ASCII)
_OWN_CODE = f"{Path(__file__).parent.parent}{os.sep}"
_LIBRARIES_OF_CALLS = ("grpc", "google")


class JsonFormatter(logging.Formatter):
    """Writes time, level, logger, event, what every line has, and what was given as `extra`."""

    def __init__(self, **always: Any) -> None:
        super().__init__()
        self._always = always

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **self._always,
        }
        line.update((k, v) for k, v in vars(record).items() if k not in _STANDARD)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class LogWriter(logging.Handler):
    """Formats records where they are logged; a thread writes them to a file descriptor.

    A record with a `count` is rate-limited: it stands for that many events. The first of
    its kind is a line at once, later ones within a second share the next line.
    """

    def __init__(self, file: int, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lost = 0
        """Lines that the queue had no room for, or that could not be written."""
        self._reported = 0
        self._file = file
        self._lines: deque[bytes] = deque()
        # Counted by two threads: each number is written by one of them only.
        self._bytes_put = self._bytes_written = 0
        self._limited: dict[tuple[str, str], logging.LogRecord | None] = {}
        self._limited_until = 0.0
        self._traced: dict[tuple[str, str, int], float] = {}
        self._closing = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if not f"{record.name}.".startswith("jobledger."):
                record = _without_private_data(record)
            elif record.exc_info and record.exc_info[1] is not None:
                record = self._shortened(record, record.exc_info[1])
            if self._is_first(record):
                self._put(record)
        except Exception:  # noqa: BLE001
            self.handleError(record)

    def drain(self) -> bool:
        """Stop after the lines that wait; return whether they could be written in time."""
        self._closing = True
        self._wake.set()
        self._thread.join(CLOSE_SECONDS)
        return not self._thread.is_alive()

    def _shortened(self, record: logging.LogRecord, error: BaseException) -> logging.LogRecord:
        """Return a record without its traceback, where that was written less than a second ago."""
        now, line = time.monotonic(), _raised_at(error)
        if now < self._traced.get(line, now):
            fields = {"exc_info": None, "error": type(error).__name__}
            return logging.makeLogRecord(vars(record) | fields)
        if len(self._traced) >= MAX_KINDS:
            self._traced.clear()
        self._traced[line] = now + LIMITED_SECONDS
        return record

    def _is_first(self, record: logging.LogRecord) -> bool:
        """Whether a record is a line now. If not, it is added up with what came before it."""
        fields = vars(record)
        if "count" not in fields:
            return True
        kind = record.name, f"{record.msg} {fields.get('text', fields.get('kind', ''))}"
        if kind not in self._limited and len(self._limited) >= MAX_KINDS:
            kind = "", ""
        if kind not in self._limited:
            if not self._limited:
                self._limited_until = time.monotonic() + LIMITED_SECONDS
            self._limited[kind] = None
            return True
        earlier = self._limited[kind]
        count = fields["count"] + (0 if earlier is None else vars(earlier)["count"])
        # Another one: other handlers have the record too.
        self._limited[kind] = logging.makeLogRecord(fields | {"count": count})
        return False

    def _put(self, record: logging.LogRecord, *, always: bool = False) -> None:
        line = self.format(record).encode() + b"\n"
        if self._bytes_put - self._bytes_written + len(line) > QUEUE_BYTES and not always:
            self.lost += 1
            return
        self._bytes_put += len(line)
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait(LIMITED_SECONDS if self._limited else None)
            self._wake.clear()
            closing = self._closing
            self._put_what_is_due(closing=closing)
            while self._lines:
                self._write()
                self._put_what_is_due(closing=closing)
            if closing:
                return

    def _put_what_is_due(self, *, closing: bool) -> None:
        """Put the lines of rate-limited events, and the number of lost lines once there is room."""
        with self.lock:  # type: ignore[union-attr]
            now = time.monotonic()
            if self._limited and (closing or now >= self._limited_until):
                waiting = [record for record in self._limited.values() if record is not None]
                self._limited = {k: None for k, record in self._limited.items() if record}
                self._limited_until = now + LIMITED_SECONDS
                for record in waiting:
                    self._put(record)
            room = self._bytes_put - self._bytes_written < QUEUE_BYTES // 2
            if self.lost > self._reported and (room or closing):
                fields = {"lost": self.lost - self._reported}
                self._reported = self.lost
                self._put(_record("jobledger.log", "log_lines_lost", fields), always=True)

    def _write(self) -> None:
        """Write what comes first: as many whole lines as a pipe takes in one piece.

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
            except BlockingIOError:  # another process that shares the file has set it so
                select.select((), (self._file,), ())
            except OSError:
                with self.lock:  # type: ignore[union-attr]
                    self.lost += len(lines)
                break
        self._bytes_written += size


class _Stderr(io.TextIOBase):
    """What libraries print to standard error: counted, and written nowhere."""

    _log = logging.getLogger("stderr")

    def write(self, text: str) -> int:
        if lines := text.count("\n"):
            self._log.warning("", exc_info=sys.exception(), extra={"count": lines})
        return len(text)


@contextmanager
def logging_to_stderr(level: str, **always: Any) -> Iterator[None]:
    """Log everything from `level` up to standard error; libraries from WARNING up.

    Every line has what is given as `always`. At the end of the block the lines that wait
    are written, as far as standard error takes them within two seconds.
    """
    stderr = sys.stderr
    writer = LogWriter(stderr.fileno(), JsonFormatter(**always))
    logging.basicConfig(level=logging.WARNING, handlers=[writer], force=True)
    logging.getLogger("jobledger").setLevel(level.upper())
    sys.stderr = _Stderr()
    try:
        yield
    finally:
        logging.basicConfig(handlers=[logging.NullHandler()], force=True)
        # What is printed last, at the end of the process, must not block it either.
        sys.stderr = stderr if writer.drain() else Path(os.devnull).open("w")  # noqa: SIM115


def lines_lost() -> int:
    """Return how many lines of this process's log were lost."""
    return sum(each.lost for each in logging.getLogger().handlers if isinstance(each, LogWriter))


def _without_private_data(record: logging.LogRecord) -> logging.LogRecord:
    """Return what may be logged of a library's record: a bug of ours keeps its traceback."""
    text = _CONSTANT.match(record.msg) if isinstance(record.msg, str) else None
    fields: dict[str, Any] = {
        "text": text.group() if text else "",
        "count": vars(record).get("count", 1),
    }
    level = min(record.levelno, logging.WARNING)
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        fields["error"] = type(error).__name__
        if _is_own_bug(error):
            fields["exc_info"] = record.exc_info
            level = record.levelno
    return _record(record.name, "library_message", fields, level=level)


def _raised_at(error: BaseException) -> tuple[str, str, int]:
    """Return an error's type and the line that raised it."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    file, line = ("", 0) if step is None else (step.tb_frame.f_code.co_filename, step.tb_lineno)
    return type(error).__name__, file, line


def _is_own_bug(error: BaseException) -> bool:
    """Whether our code raised it, other than by what gRPC or protobuf say of a call."""
    if type(error).__module__.partition(".")[0] in _LIBRARIES_OF_CALLS:
        return False
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename.startswith(_OWN_CODE):
            return True
        step = step.tb_next
    return False


def _record(
    logger: str, event: str, fields: dict[str, Any], *, level: int = logging.WARNING
) -> logging.LogRecord:
    made = {
        "name": logger,
        "msg": event,
        "levelno": level,
        "levelname": logging.getLevelName(level),
    }
    return logging.makeLogRecord(made | fields)
