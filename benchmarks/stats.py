"""Figures: what was measured in rounds, how it is summed up, and how it is shown."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any


class Kind(Enum):
    """What a figure is, in the order in which figures are shown.

    A cost hardly depends on what else the machine does, so it comes first.
    """

    COST = "cost"
    RATE = "rate"
    TIME = "time"


@dataclass
class Figure:
    """One thing that is measured, round by round, with its ceiling of the same round if it has one.

    Of rates a ratio of 1.0 is as many as the ceiling has, of costs and times as little. `bar` is
    what the ratio is to reach or to stay under, `bar_value` the same of the value.
    """

    name: str
    kind: Kind
    unit: str
    bar: float | None = None
    bar_value: float | None = None
    rounds: list[tuple[float, float | None]] = field(default_factory=list)

    @property
    def value(self) -> float:
        return statistics.median(value for value, _ in self.rounds)

    @property
    def ceiling(self) -> float | None:
        ceilings = [ceiling for _, ceiling in self.rounds if ceiling is not None]
        return statistics.median(ceilings) if ceilings else None

    @property
    def ratios(self) -> list[float]:
        return [value / ceiling for value, ceiling in self.rounds if ceiling]

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' ratios."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is none."""
        for measured, bar in ((self.ratio, self.bar), (self.value, self.bar_value)):
            if measured is not None and bar is not None:
                return measured >= bar if self.kind is Kind.RATE else measured <= bar
        return None

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind.value,
            "unit": self.unit,
            "value": self.value,
            "ceiling": self.ceiling,
            "ratio": self.ratio,
            "bar": self.bar,
            "bar_value": self.bar_value,
            "met": self.met,
            "rounds": [{"value": value, "ceiling": ceiling} for value, ceiling in self.rounds],
        }


class Report:
    """The figures of a run, and what a reader must know about them."""

    def __init__(self) -> None:
        self._figures: dict[str, Figure] = {}
        self.notes: list[str] = []

    @property
    def figures(self) -> list[Figure]:
        """Costs first, then rates, then times; else in the order in which they came."""
        kinds = list(Kind)
        return sorted(self._figures.values(), key=lambda figure: kinds.index(figure.kind))

    def cost(
        self, name: str, unit: str, value: float, ceiling: float | None = None, **bars: float
    ) -> None:
        """Add a round of a cost: CPU time, statements, bytes.

        Args:
            name: of the figure; rounds of the same name belong together.
            unit: such as µs/call.
            value: as measured in this round.
            ceiling: what was measured in the same round to compare it with.
            bars: `bar`, which the ratio must meet, or `bar_value`, which the value must meet.
        """
        self._figure(Kind.COST, name, unit, bars).append((value, ceiling))

    def rate(
        self, name: str, unit: str, value: float, ceiling: float | None = None, **bars: float
    ) -> None:
        """Add a round of a rate, of which more is better. The arguments are those of `cost`."""
        self._figure(Kind.RATE, name, unit, bars).append((value, ceiling))

    def time(
        self, name: str, unit: str, value: float, ceiling: float | None = None, **bars: float
    ) -> None:
        """Add a round of a duration. The arguments are those of `cost`."""
        self._figure(Kind.TIME, name, unit, bars).append((value, ceiling))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def table(self) -> str:
        return _table([_row(figure) for figure in self.figures])

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": describe_machine(),
            "figures": [figure.as_json() for figure in self.figures],
            "notes": self.notes,
        }

    def publish(self, file: Path | None) -> None:
        """Print everything, and write it to a file as JSON where there is one."""
        print(", ".join(f"{name} {value}" for name, value in describe_machine().items()))
        print(f"\n{self.table()}\n")
        for note in self.notes:
            print(f"- {note}")
        if file is not None:
            text = json.dumps(self.as_json(), indent=1, ensure_ascii=False)
            file.write_text(text + "\n", encoding="utf-8")

    def _figure(
        self, kind: Kind, name: str, unit: str, bars: dict[str, float]
    ) -> list[tuple[float, float | None]]:
        """Return the rounds of a figure."""
        new = Figure(name, kind, unit, bars.get("bar"), bars.get("bar_value"))
        return self._figures.setdefault(name, new).rounds


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


_HEADINGS = ("", "unit", "median", "ceiling", "ratio", "of rounds", "bar")
_WORDS = ("", "unit", "bar")


def _row(figure: Figure) -> tuple[str, ...]:
    ratios = figure.ratios
    return (
        figure.name,
        figure.unit,
        _number(figure.value),
        _number(figure.ceiling),
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else "",
        _bar(figure),
    )


def _bar(figure: Figure) -> str:
    """Write the bar, and whether it is met: `≥ 0.80 met`, `≤ 2 ms missed`."""
    if figure.met is None:
        return ""
    sign = "≥" if figure.kind is Kind.RATE else "≤"
    limit = f"{figure.bar_value:g} {figure.unit}" if figure.bar is None else f"{figure.bar:.2f}"
    return f"{sign} {limit} {'met' if figure.met else 'missed'}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    columns = [
        column
        for column in zip(_HEADINGS, *rows, strict=True)
        if column[0] == "" or any(column[1:])
    ]
    aligned = [_aligned(column) for column in columns]
    lines = ["  ".join(row).rstrip() for row in zip(*aligned, strict=True)]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def _aligned(column: Sequence[str]) -> list[str]:
    width = max(map(len, column))
    return [cell.ljust(width) if column[0] in _WORDS else cell.rjust(width) for cell in column]
