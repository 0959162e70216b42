"""What a handler has reported and what is not delivered yet.

Pure: no network, no clock. A handler may report as often as it likes: only the newest report is
sent, at most ten times a second (INTERVAL), and the last one always is.
"""

from dataclasses import dataclass
from typing import Final

INTERVAL: Final = 0.1
"""Seconds between two reports of one job."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a handler reports at once; None means unchanged."""

    progress: int | None = None
    """Percent."""
    message: str | None = None
    """For people."""

    def __bool__(self) -> bool:
        return self.progress is not None or self.message is not None


class Throttle:
    """Keeps the newest report of one job until it has arrived."""

    def __init__(self, progress: int = 0) -> None:
        self._highest = progress
        self._pending = Report()

    def offer(self, progress: int | None, message: str | None) -> None:
        """Record a report: progress never decreases; the message may change without it."""
        if progress is not None:
            self._highest = progress = max(progress, self._highest)
        self._pending = Report(
            self._pending.progress if progress is None else progress,
            self._pending.message if message is None else message,
        )

    @property
    def pending(self) -> Report:
        return self._pending

    def arrived(self, report: Report) -> None:
        """Remove what was delivered, unless a newer report has replaced it."""
        self._pending = Report(
            None if self._pending.progress == report.progress else self._pending.progress,
            None if self._pending.message == report.message else self._pending.message,
        )
