"""Limits how often log events of one kind, and equal tracebacks, are written."""

import logging
import time
from collections.abc import Mapping
from typing import Any

LIMIT_SECONDS = 1.0
"""Rate-limited events of one kind share a line in this time."""

MAX_KINDS = 64
"""Kinds of one rate-limited event that are distinguished. All further ones share a line that names
none of them."""

MAX_CALLER_KINDS = 10_000
"""The same for events of callers with an identity. No number of addresses can crowd these out."""

MAX_JOBS = 50
"""Jobs that a line for several events names at most."""

NAMING = ("text", "kind", "caller", "address", "change", "method", "outcome")
"""The fields that make a kind of an event: a line stands only for events that have them in common.
"""

Kind = tuple[object, ...]


class RateLimiter:
    """Merges rate-limited events. Not thread-safe.

    A record with a `count` is rate-limited: it stands for that many events. The first
    record of a kind is written at once; those of the next LIMIT_SECONDS share one line.
    """

    def __init__(self) -> None:
        self._merged: dict[Kind, dict[Kind, logging.LogRecord | None]] = {}  # by event, then kind
        self._next_due = 0.0
        self._tracebacks: dict[tuple[str, str, int], float] = {}  # until when to omit them

    @property
    def active(self) -> bool:
        """Whether records may become due."""
        return bool(self._merged)

    def admits(self, record: logging.LogRecord) -> bool:
        """Whether to write the record now. If not, it is merged into one that is due later."""
        fields = vars(record)
        if "count" not in fields:
            return True
        if not self._merged:
            self._next_due = time.monotonic() + LIMIT_SECONDS
        known = "caller" in fields
        kinds = self._merged.setdefault((record.name, record.msg, known), {})
        kind: Kind = tuple(fields.get(name) for name in NAMING)
        if kind not in kinds:
            if len(kinds) < (MAX_CALLER_KINDS if known else MAX_KINDS):
                kinds[kind] = None
                return True
            kind, fields = (), {name: value for name, value in fields.items() if name not in NAMING}
        earlier = kinds.get(kind)
        # A copy, because other handlers have the record too.
        kinds[kind] = logging.makeLogRecord(
            fields if earlier is None else fields | _shared(vars(earlier), fields)
        )
        return False

    def due(self, *, closing: bool) -> list[logging.LogRecord]:
        """Return the merged records to write now: all of them if `closing`."""
        now = time.monotonic()
        if not closing and now < self._next_due:
            return []
        events, self._merged, self._next_due = self._merged, {}, now + LIMIT_SECONDS
        due: list[logging.LogRecord] = []
        for event, kinds in events.items():
            merged = {kind: record for kind, record in kinds.items() if record is not None}
            due += merged.values()
            if merged:
                self._merged[event] = dict.fromkeys(merged)
        return due

    def without_repeated_traceback(
        self, record: logging.LogRecord, error: BaseException
    ) -> logging.LogRecord:
        """Return the record, without its traceback if that was logged within LIMIT_SECONDS."""
        now, line = time.monotonic(), _raised_at(error)
        if now < self._tracebacks.get(line, now):
            fields = {"exc_info": None, "error": type(error).__name__}
            return logging.makeLogRecord(vars(record) | fields)
        if len(self._tracebacks) >= MAX_KINDS:
            self._tracebacks.clear()
        self._tracebacks[line] = now + LIMIT_SECONDS
        return record


def _shared(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a line for both events says of them."""
    shared = {"count": earlier["count"] + later["count"]}
    if "jobs" in later:
        shared["jobs"] = list(dict.fromkeys((*earlier["jobs"], *later["jobs"])))[:MAX_JOBS]
    return shared


def _raised_at(error: BaseException) -> tuple[str, str, int]:
    """Return an error's type and the line that raised it."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    file, line = ("", 0) if frame is None else (frame.tb_frame.f_code.co_filename, frame.tb_lineno)
    return type(error).__name__, file, line
