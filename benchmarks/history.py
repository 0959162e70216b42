"""What was measured before, run by run, oldest first, as it is kept in the repository."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.report import Figure

DIGITS = 4
"""More than a benchmark tells."""


@dataclass(frozen=True)
class Run:
    """One day's figures by name: of each its unit, its value, and its ratio if it has one."""

    date: str
    machine: Mapping[str, Any]
    figures: Mapping[str, Mapping[str, Any]]

    def ratio(self, name: str) -> float | None:
        ratio: float | None = self.figures.get(name, {}).get("ratio")
        return ratio


def run_of(day: date, machine: Mapping[str, Any], figures: Sequence[Figure]) -> Run:
    """Make a run of what was measured on a day."""
    kept = {
        figure.name: {
            "unit": figure.unit,
            "value": _rounded(figure.value),
            "ratio": None if figure.ratio is None else _rounded(figure.ratio),
        }
        for figure in figures
    }
    return Run(day.isoformat(), machine, kept)


def read_runs(file: Path) -> list[Run]:
    """Read the history; where there is no file, none has begun."""
    if not file.exists():
        return []
    return [Run(**run) for run in json.loads(file.read_text(encoding="utf-8"))]


def write_runs(file: Path, runs: Sequence[Run]) -> None:
    text = json.dumps([asdict(run) for run in runs], indent=1, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
