"""The time in which is measured, and how much of it a call takes."""

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
