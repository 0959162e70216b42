"""What paired rounds say: the median of their ratios, its spread, and whether they differ.

The spread is the interval of the median that the sign test has: between two of the sorted
ratios, with no assumption about how they are distributed. A difference is seen only where the
whole interval lies beyond what does not matter. So one disturbed round does not make a
difference, and a tree against itself hardly ever shows one.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

CONFIDENCE = 0.975
"""How sure the interval is to have the true median in it, given enough rounds."""


class Verdict(Enum):
    """What the second revision is, compared with the first."""

    WORSE = "worse"
    BETTER = "better"
    SAME = "no difference seen"
    UNKNOWN = "too few rounds"


@dataclass(frozen=True)
class Spread:
    """The median of paired ratios, and the interval that it lies in."""

    ratio: float
    low: float
    high: float

    def verdict(self, tolerance: float, *, more_is_better: bool) -> Verdict:
        """Judge the interval: a difference is one that is wholly beyond the tolerance.

        Args:
            tolerance: the part of 1 by which a ratio may differ from 1 and mean nothing.
            more_is_better: whether the measured value is better if it is higher.
        """
        if self.low > 1 + tolerance:
            return Verdict.BETTER if more_is_better else Verdict.WORSE
        if self.high < 1 / (1 + tolerance):
            return Verdict.WORSE if more_is_better else Verdict.BETTER
        return Verdict.SAME


def spread_of(pairs: Sequence[tuple[float, float]]) -> Spread:
    """Return the spread of second by first. Pairs of zeros count as equal."""
    ratios = sorted(_ratio(first, second) for first, second in pairs)
    outside = left_out(len(ratios))
    return Spread(statistics.median(ratios), ratios[outside], ratios[-1 - outside])


def left_out(rounds: int) -> int:
    """Return how many of the sorted ratios lie outside the interval, on each side.

    The true median is above the k-th of n ratios unless fewer than k of them are below it,
    which are the tosses of a coin.
    """
    outside, tail = 0, 1.0
    while outside < (rounds - 1) // 2:
        tail += math.comb(rounds, outside + 1)
        if 2 * tail / 2**rounds > 1 - CONFIDENCE:
            break
        outside += 1
    return outside


def _ratio(first: float, second: float) -> float:
    if first == second:
        return 1.0
    return second / first if first else math.inf


class Kind(Enum):
    """What is measured of a piece of work, in the order in which it is shown.

    What the load on the machine changes least comes first. `tolerance` is by how much a ratio may
    differ from 1 and mean nothing; `words` are what the second revision is where it is worse, and
    where it is better. Below `fewest` rounds nothing is said: fewer than seven could all agree by
    chance, unless they are of what hardly varies.
    """

    SERVER_CPU = "server CPU", 0.02
    DATABASE_CPU = "database CPU", 0.03
    STATEMENTS = "statements", 0.05, ("more", "fewer"), 5
    ROUND_TRIPS = "round trips", 0.05, ("more", "fewer"), 5
    WAL = "write-ahead log", 0.05, ("more", "less"), 5
    MEMORY = "memory", 0.02, ("more", "less")
    RATE = "rate", 0.03
    DURATION = "time", 0.03

    def __init__(
        self,
        title: str,
        tolerance: float,
        words: tuple[str, str] = ("slower", "faster"),
        fewest: int = 7,
    ) -> None:
        self.title = title
        self.tolerance = tolerance
        self.words = words
        self.fewest = fewest


@dataclass
class Difference:
    """A figure of two revisions, round by round."""

    kind: Kind
    name: str
    unit: str
    pairs: list[tuple[float, float]] = field(default_factory=list)

    @property
    def spread(self) -> Spread:
        return spread_of(self.pairs)

    @property
    def verdict(self) -> Verdict:
        if len(self.pairs) < self.kind.fewest:
            return Verdict.UNKNOWN
        more_is_better = self.kind is Kind.RATE
        return self.spread.verdict(self.kind.tolerance, more_is_better=more_is_better)

    @property
    def differs(self) -> bool:
        return self.verdict in (Verdict.WORSE, Verdict.BETTER)

    @property
    def word(self) -> str:
        """What the second revision is, in a word."""
        return (
            self.kind.words[self.verdict is Verdict.BETTER] if self.differs else self.verdict.value
        )


class Differences:
    """All figures of a comparison."""

    def __init__(self) -> None:
        self._figures: dict[tuple[Kind, str], Difference] = {}

    def add(self, kind: Kind, name: str, unit: str, values: tuple[float, float]) -> None:
        """Add what a round has measured: of the first revision, and of the second."""
        figure = self._figures.setdefault((kind, name), Difference(kind, name, unit))
        figure.pairs.append(values)

    def __iter__(self) -> Iterator[Difference]:
        kinds = list(Kind)
        return iter(sorted(self._figures.values(), key=lambda figure: kinds.index(figure.kind)))
