"""What comes of a benchmark: its figures and notes, gathered, printed and written to a file."""

import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from benchmarks.report import Figure, table


class Scenario(Protocol):
    """Something that is measured in rounds."""

    @property
    def figures(self) -> Sequence[Figure]: ...

    @property
    def notes(self) -> Sequence[str]: ...

    def prepare(self) -> None: ...

    def measure_round(self) -> None: ...


@dataclass
class Report:
    """What has been measured so far."""

    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ceiling: str = "ceiling"
    """What the figures are beside, as the table heads that column."""

    def add(self, scenario: Scenario, rounds: int) -> None:
        scenario.prepare()
        for number in range(1, rounds + 1):
            tell(f"{type(scenario).__name__.lower()}: round {number} of {rounds}")
            scenario.measure_round()
        self.figures += scenario.figures
        self.notes += scenario.notes


def tell(what: str) -> None:
    """Tell whoever waits what is being done."""
    print(f"{Path(sys.argv[0]).stem}: {what}", file=sys.stderr, flush=True)


def describe_machine() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("grpcio", "protobuf", "uvloop", "sqlalchemy")},
    }


def publish(report: Report, *, begin: float, quick: bool, file: Path | None) -> None:
    """Print a report that was begun at `begin`, by the monotonic clock, and write it to a file."""
    machine = describe_machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(f"medians of all rounds, in {time.monotonic() - begin:.0f} s\n")
    print(table(report.figures, report.ceiling))
    print()
    for note in report.notes:
        print(f"- {note}")
    if file:
        figures = [figure.as_json() for figure in report.figures]
        whole = {"machine": machine, "quick": quick, "figures": figures}
        file.write_text(json.dumps(whole | {"notes": report.notes}, indent=2) + "\n")
