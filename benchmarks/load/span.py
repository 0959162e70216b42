"""What calls are counted by: the span that is measured, and the job that a report is on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """From `begin` to `end`, in seconds by the monotonic clock."""

    begin: float
    end: float

    def has(self, now: float) -> bool:
        return self.begin <= now < self.end

    def share(self, sent: float, answered: float) -> float:
        """Return which part of a call's time lies in the span: that is how much the call counts.

        Where many are answered at once, a count of the answers would have one such crowd more
        or less by chance. True of calls that follow one on another; of those that begin all at
        once the first are answered too soon, so the warm-up must be longer than a call takes.
        """
        inside = min(answered, self.end) - max(sent, self.begin)
        return max(0.0, inside) / (answered - sent)


@dataclass(slots=True)
class RunningJob:
    """A job that is reported on, and the version that its last answer had."""

    id: str
    version: int
