"""Figures: what was measured in rounds, and how it is shown."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Figure:
    """One thing that is measured, round by round, each time beside its ceiling if it has one.

    `more_is_better` says how to read the ratio: of rates 1.0 is the most that can
    be reached, of costs and times the least.
    """

    name: str
    unit: str
    more_is_better: bool = False
    pairs: list[tuple[float, float | None]] = field(default_factory=list)

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

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "more_is_better": self.more_is_better,
            "value": self.value,
            "ceiling": self.ceiling,
            "ratio": statistics.median(self.ratios) if self.ratios else None,
            "rounds": [{"value": value, "ceiling": ceiling} for value, ceiling in self.pairs],
        }


HEADINGS = ("", "unit", "ours", "ceiling", "ratio", "of rounds", "better is")


def table(figures: Iterable[Figure]) -> str:
    """Draw the figures: medians, the median of the rounds' ratios, and from where to where."""
    rows = [HEADINGS, *map(_row, figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if number in (0, 1, 6) else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def _row(figure: Figure) -> tuple[str, ...]:
    ratios = figure.ratios
    return (
        figure.name,
        figure.unit,
        _number(figure.value),
        _number(figure.ceiling),
        f"{statistics.median(ratios):.2f}" if ratios else "",
        f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else "",
        "more" if figure.more_is_better else "less",
    )


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
