"""Figures: what was measured in rounds, and how it is shown."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class Figure:
    """One thing that is measured, round by round, each time beside its ceiling if it has one.

    `more_is_better` says how to read the ratio: of rates 1.0 is the most that can
    be reached, of costs and times the least. `bar` is what the ratio is to reach or
    to stay under, or, by `bar_of`, the value.
    """

    name: str
    unit: str
    more_is_better: bool = False
    pairs: list[tuple[float, float | None]] = field(default_factory=list)
    bar: float | None = field(default=None, kw_only=True)
    bar_of: Literal["ratio", "value"] = field(default="ratio", kw_only=True)

    def add(self, value: float, ceiling: float | None = None) -> None:
        """Add a round: ours, and the ceiling as it was measured just before."""
        self.pairs.append((value, ceiling))

    @property
    def value(self) -> float:
        return statistics.median(value for value, _ in self.pairs)

    @property
    def ceiling(self) -> float | None:
        ceilings = [ceiling for _, ceiling in self.pairs if ceiling is not None]
        return statistics.median(ceilings) if ceilings else None

    @property
    def ratios(self) -> list[float]:
        return [value / ceiling for value, ceiling in self.pairs if ceiling is not None]

    @property
    def ratio(self) -> float | None:
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is none, or nothing to compare with it."""
        measured = self.ratio if self.bar_of == "ratio" else self.value
        if self.bar is None or measured is None:
            return None
        return measured >= self.bar if self.more_is_better else measured <= self.bar

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "more_is_better": self.more_is_better,
            "value": self.value,
            "ceiling": self.ceiling,
            "ratio": self.ratio,
            "bar": self.bar,
            "bar_of": None if self.bar is None else self.bar_of,
            "met": self.met,
            "rounds": [{"value": value, "ceiling": ceiling} for value, ceiling in self.pairs],
        }


LEFT = ("", "unit", "better is", "bar")
"""The columns of words."""


def table(figures: Sequence[Figure], ceiling: str = "ceiling") -> str:
    """Draw the figures: medians, the median of the rounds' ratios, and from where to where.

    `ceiling` is what stands above the column of what each was measured beside.
    """
    headings = ("", "unit", "ours", ceiling, "ratio", "of rounds", "better is", "bar")
    columns = list(zip(headings, *map(_row, figures), strict=True))
    if all(figure.bar is None for figure in figures):
        columns.pop()
    aligned = [_aligned(column) for column in columns]
    lines = ["  ".join(row).rstrip() for row in zip(*aligned, strict=True)]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def _aligned(column: Sequence[str]) -> list[str]:
    width = max(map(len, column))
    return [cell.ljust(width) if column[0] in LEFT else cell.rjust(width) for cell in column]


def _row(figure: Figure) -> tuple[str, ...]:
    ratios = figure.ratios
    return (
        figure.name,
        figure.unit,
        _number(figure.value),
        _number(figure.ceiling),
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else "",
        "more" if figure.more_is_better else "less",
        _bar(figure),
    )


def _bar(figure: Figure) -> str:
    """Write the bar, and whether it is met: `≥ 0.80 met`, `≤ 2 ms missed`."""
    if figure.bar is None:
        return ""
    sign = "≥" if figure.more_is_better else "≤"
    if figure.bar_of == "ratio":
        limit = f"{figure.bar:.2f}"
    else:
        limit = f"{figure.bar:g} {figure.unit.split()[0]}"
    outcome = {True: " met", False: " missed", None: ""}[figure.met]
    return f"{sign} {limit}{outcome}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the 50th and the 99th percentile in milliseconds."""
    hundredths = statistics.quantiles(seconds, n=100, method="inclusive")
    return hundredths[49] * 1e3, hundredths[98] * 1e3
