"""Results: what was measured in rounds, against what, and what the rounds say.

Each round gives a value and, where there is one, a reference that was measured in the same round:
another revision, or a smaller database. What counts is the median of their ratios and its spread:
the interval of the median that the sign test has, which assumes nothing about how ratios are
distributed. So one disturbed round of ten changes nothing.
"""

import json
import math
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

CONFIDENCE = 0.975
"""How sure the interval is to have the true median in it, given enough rounds."""


class Kind(Enum):
    """What is measured, in the order in which it is shown: what a busy machine changes least first.

    `tolerance` is by how much a ratio may differ from 1 and mean nothing; `words` are what a
    revision is where it is worse, and where it is better. Below `fewest` rounds nothing is said:
    fewer than seven could all agree by chance, unless they are of what hardly varies.
    """

    SERVER_CPU = "server CPU", 0.02
    DATABASE_CPU = "database CPU", 0.03
    CLIENT_CPU = "client CPU", 0.03
    STATEMENTS = "statements", 0.05, ("more", "fewer"), 5
    ROUND_TRIPS = "round trips", 0.05, ("more", "fewer"), 5
    WAL = "write-ahead log", 0.05, ("more", "less"), 5
    MEMORY = "memory", 0.02, ("more", "less")
    RATE = "rate", 0.03
    TIME = "time", 0.03

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
class Figure:
    """One thing that is measured, round by round, each value with its reference if it has one.

    `bar` is what the value is to stay under, `ratio_bar` the same of the ratio.
    """

    kind: Kind
    name: str
    unit: str
    bar: float | None = None
    ratio_bar: float | None = None
    rounds: list[tuple[float, float | None]] = field(default_factory=list)

    @property
    def value(self) -> float:
        return statistics.median(value for value, _ in self.rounds)

    @property
    def reference(self) -> float | None:
        references = [reference for _, reference in self.rounds if reference is not None]
        return statistics.median(references) if references else None

    @property
    def ratios(self) -> list[float]:
        """The ratios of value to reference, sorted. Two zeros are equal."""
        return sorted(
            1.0 if value == reference else value / reference if reference else math.inf
            for value, reference in self.rounds
            if reference is not None
        )

    @property
    def ratio(self) -> float | None:
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def interval(self) -> tuple[float, float]:
        """What the true median of the ratios lies in."""
        ratios = self.ratios
        outside = left_out(len(ratios))
        return ratios[outside], ratios[-1 - outside]

    @property
    def differs(self) -> bool:
        """Whether value and reference differ: the whole interval is beyond the tolerance."""
        low, high = self.interval
        least = 1 + self.kind.tolerance
        return len(self.rounds) >= self.kind.fewest and (low > least or high < 1 / least)

    @property
    def verdict(self) -> str:
        """What the value is, compared with its reference."""
        if self.differs:
            more = self.interval[0] > 1
            return self.kind.words[more is (self.kind is Kind.RATE)].upper()
        return "no difference seen" if len(self.rounds) >= self.kind.fewest else "too few rounds"

    @property
    def judgement(self) -> str:
        """The bar, and whether it is met: `≤ 1.2 met`, `≤ 20 ms missed`."""
        for measured, bar, unit in (
            (self.value, self.bar, f" {self.unit}"),
            (self.ratio, self.ratio_bar, ""),
        ):
            if measured is not None and bar is not None:
                return f"≤ {bar:g}{unit} {'met' if measured <= bar else 'missed'}"
        return ""


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


class Report:
    """The results of a run, and what a reader must know about them.

    Args:
        comparing: whether the references are those of another revision, which judge the values;
            else bars do.
    """

    def __init__(self, *, comparing: bool = False) -> None:
        self._figures: dict[tuple[Kind, str], Figure] = {}
        self._comparing = comparing
        self.notes: list[str] = []

    def add(
        self,
        kind: Kind,
        name: str,
        unit: str,
        value: float,
        reference: float | None = None,
        *,
        bar: float | None = None,
        ratio_bar: float | None = None,
    ) -> None:
        """Add a round of a result.

        Args:
            kind: what is measured.
            name: rounds of the same kind and name belong together.
            unit: such as µs/call.
            value: as measured in this round.
            reference: what was measured in the same round to compare it with.
            bar: what the value must stay under.
            ratio_bar: what the ratio must stay under.
        """
        new = Figure(kind, name, unit, bar, ratio_bar)
        figure = self._figures.setdefault((kind, name), new)
        figure.rounds.append((value, reference))

    def note(self, text: str) -> None:
        self.notes.append(text)

    @property
    def figures(self) -> list[Figure]:
        kinds = list(Kind)
        return sorted(self._figures.values(), key=lambda figure: kinds.index(figure.kind))

    def publish(self, file: Path | None) -> None:
        """Print everything, and write every round to a file as JSON where there is one."""
        machine = describe_machine()
        print(", ".join(f"{name} {value}" for name, value in machine.items()))
        print(f"\n{self.table()}\n")
        for note in self.notes:
            print(f"- {note}")
        if file is not None:
            figures = [
                {
                    "kind": figure.kind.title,
                    "name": figure.name,
                    "unit": figure.unit,
                    "word": self._word(figure),
                    "rounds": figure.rounds,
                }
                for figure in self.figures
            ]
            whole = {"machine": machine, "figures": figures, "notes": self.notes}
            text = json.dumps(whole, indent=1, ensure_ascii=False)
            file.write_text(text + "\n", encoding="utf-8")

    def table(self) -> str:
        """Draw the medians, the median of the ratios with its interval, and the word."""
        columns = ("first", "second") if self._comparing else ("reference", "median")
        rows: list[tuple[str, ...]] = [("", "", *columns, "ratio", "interval", "")]
        kind = None
        for figure in self.figures:
            if figure.kind is not kind:
                kind = figure.kind
                rows.append((kind.title, *[""] * 6))
            rows.append(self._row(figure))
        return aligned(rows, left=(0, 1, 6))

    def _row(self, figure: Figure) -> tuple[str, ...]:
        ratio, interval = "", ""
        if figure.ratio is not None:
            low, high = figure.interval
            ratio, interval = f"{figure.ratio:.3f}", f"{low:.3f} to {high:.3f}"
        return (
            f"  {figure.name}",
            figure.unit,
            _number(figure.reference),
            _number(figure.value),
            ratio,
            interval,
            self._word(figure),
        )

    def _word(self, figure: Figure) -> str:
        return figure.verdict if self._comparing else figure.judgement


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Draw a table: the columns of these numbers flush left, all others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def describe_machine() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("grpcio", "protobuf", "uvloop", "sqlalchemy")},
    }


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the 50th and the 99th percentile, in milliseconds."""
    hundredths = statistics.quantiles(seconds, n=100, method="inclusive")
    return hundredths[49] * 1e3, hundredths[98] * 1e3
