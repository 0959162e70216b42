"""What a benchmark prints at its end: the machine, the table of figures, the notes."""

import json
import time
from pathlib import Path

from bench import Report, describe_machine
from report import table


def publish(report: Report, *, begin: float, quick: bool, file: Path | None) -> None:
    """Print a report that was begun at `begin`, by the monotonic clock, and write it to a file."""
    machine = describe_machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(f"in {time.monotonic() - begin:.0f} s\n")
    print(table(report.figures, report.ceiling))
    print()
    for note in report.notes:
        print(f"- {note}")
    if file:
        figures = [figure.as_json() for figure in report.figures]
        whole = {"machine": machine, "quick": quick, "figures": figures}
        file.write_text(json.dumps(whole | {"notes": report.notes}, indent=2) + "\n")
