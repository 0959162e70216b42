"""What a handler has reported and what is not committed yet.

Pure: no network, no clock. A handler may report as often as it likes: only the newest report is
sent, and the last one always is.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Report:
    """What a handler reports at once; None means unchanged."""

    progress: int | None = None
    """Percent."""
    message: str | None = None
    """For people."""
    checkpoint: dict[str, Any] | None = None
    """Where the next attempt would go on."""

    def __bool__(self) -> bool:
        return self != Report()


class PendingReport:
    """Keeps the newest report of one job until it is committed."""

    def __init__(self, progress: int = 0) -> None:
        self._highest = progress
        self.report = Report()

    def add(
        self, progress: int | None, message: str | None, checkpoint: dict[str, Any] | None = None
    ) -> None:
        """Take a report: progress never decreases; the message may change without it."""
        if progress is not None:
            self._highest = progress = max(progress, self._highest)
        self.report = Report(
            self.report.progress if progress is None else progress,
            self.report.message if message is None else message,
            self.report.checkpoint if checkpoint is None else checkpoint,
        )

    def committed(self, report: Report) -> None:
        """Remove what is committed, unless a newer report has replaced it."""
        self.report = Report(
            None if self.report.progress == report.progress else self.report.progress,
            None if self.report.message == report.message else self.report.message,
            # Not by its value: {"done": True} would be equal to {"done": 1}.
            None if self.report.checkpoint is report.checkpoint else self.report.checkpoint,
        )
