"""The service's clock where it was set during a run: what it showed before, and after.

All times are microseconds since the Unix epoch, by that clock.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Jump:
    """The clock was set from one time to another. What it showed it may show again."""

    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Period:
    """What the clock showed between two jumps."""

    began: float
    ended: float

    def has(self, time: int) -> bool:
        return self.began <= time <= self.ended


def had_shown(time: int, by: int, jumps: Sequence[Jump]) -> bool:
    """Whether the clock may have shown a time already, when it showed the time `by`."""
    periods = _periods(jumps)
    last = max(_when(by, periods), default=0)
    return time <= by or any(time <= period.ended for period in periods[:last])


def earliest_between(start: int, end: int, jumps: Sequence[Jump]) -> float:
    """Return the earliest time that the clock may have shown between a start and an end."""
    periods = _periods(jumps)
    first, last = min(_when(start, periods), default=0), max(_when(end, periods), default=0)
    return min([start, *(period.began for period in periods[first + 1 : last + 1])])


def _periods(jumps: Sequence[Jump]) -> list[Period]:
    began = [-math.inf, *(jump.after for jump in jumps)]
    ended = [*(jump.before for jump in jumps), math.inf]
    return [Period(*each) for each in zip(began, ended, strict=True)]


def _when(time: int, periods: Iterable[Period]) -> list[int]:
    """Return in which periods the clock showed a time, by their numbers."""
    return [number for number, period in enumerate(periods) if period.has(time)]
