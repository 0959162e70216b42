"""Draws what benchmarks wrote with --json, and how it has been before.

    python -m benchmarks.plots [--record] [--date DATE] [--into FOLDER] [FILE...]

Of the files it draws `throughput.svg` and `costs.svg`, where they have figures of that kind;
of the history that lies in the same folder, `history.svg`. docs/performance.md shows them.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from benchmarks.canvas import BLUE, FRAME_INCHES, INK, ORANGE, QUIET, ROW_INCHES, drawing, name_rows
from benchmarks.course import draw_history
from benchmarks.history import read_runs, run_of, write_runs
from benchmarks.processes import BenchmarkError
from benchmarks.report import Figure
from benchmarks.spending import draw_costs

FOLDER = Path(__file__).parent.parent / "docs/performance"
HISTORY = "history.json"


@dataclass(frozen=True)
class Source:
    """One file that a benchmark wrote."""

    machine: dict[str, Any]
    quick: bool
    figures: list[Figure]


def read(file: Path) -> Source:
    """Read what a benchmark wrote. Raises BenchmarkError."""
    try:
        whole = json.loads(file.read_text(encoding="utf-8"))
        figures = [_figure(fields) for fields in whole["figures"]]
        return Source(whole["machine"], whole["quick"], figures)
    except OSError as error:
        raise BenchmarkError(f"{file}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError):
        raise BenchmarkError(f"{file} is not what a benchmark writes with --json") from None


def _figure(fields: dict[str, Any]) -> Figure:
    return Figure(
        fields["name"],
        fields["unit"],
        more_is_better=fields["more_is_better"],
        pairs=[(pair["value"], pair["ceiling"]) for pair in fields["rounds"]],
        bar=fields.get("bar"),
        bar_of=fields.get("bar_of") or "ratio",
    )


def draw(files: Sequence[Path], folder: Path, *, recorded: date | None) -> None:
    """Draw them all, and record the figures as those of a day. Raises BenchmarkError."""
    sources = [read(file) for file in files]
    figures = [figure for source in sources for figure in source.figures]
    runs = read_runs(folder / HISTORY)
    if recorded:
        if not sources or any(source.quick for source in sources):
            raise BenchmarkError("what is recorded is a whole run, not one with --quick")
        runs.append(run_of(recorded, sources[0].machine, figures))
    draw_throughput(figures, folder / "throughput.svg")
    draw_costs(figures, folder / "costs.svg")
    draw_history(runs, folder / "history.svg")
    # Last: what could not be drawn is not recorded either, and can be tried again.
    if recorded:
        write_runs(folder / HISTORY, runs)


def draw_throughput(figures: Sequence[Figure], file: Path) -> None:
    """Draw the ratios of all rates: medians, from where to where, and the bars."""
    rates = [figure for figure in figures if figure.more_is_better and figure.ratios]
    if not rates:
        return
    with drawing(file, FRAME_INCHES + ROW_INCHES * len(rates)) as canvas:
        axes = canvas.subplots()
        for row, rate in enumerate(rates):
            axes.barh(row, rate.ratio, height=0.6, color=BLUE)
            axes.hlines(row, min(rate.ratios), max(rate.ratios), color=INK, linewidth=1)
            if rate.bar is not None and rate.bar_of == "ratio":
                axes.vlines(rate.bar, row - 0.42, row + 0.42, color=ORANGE, linewidth=2.5)
            axes.text(1.01, row, _outcome(rate), transform=axes.get_yaxis_transform(), va="center")
        axes.axvline(1, color=QUIET, linewidth=1, linestyle="--")
        axes.set_title("Rates as shares of the ceiling: median, and least to greatest of rounds")
        axes.set_xlabel("1.0: the ceiling; orange: what is to be reached")
        axes.set_xlim(0)
        name_rows(axes, [rate.name for rate in rates])


def _outcome(rate: Figure) -> str:
    """Write what stands beside a row: `0.69`, `0.69, ≥ 0.80 missed`."""
    if rate.bar is None or rate.bar_of == "value":
        return f"{rate.ratio:.2f}"
    return f"{rate.ratio:.2f}, ≥ {rate.bar:.2f} {'met' if rate.met else 'missed'}"


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="FILE", type=Path)
    parser.add_argument("--record", action="store_true", help="keep them in the history too")
    parser.add_argument(
        "--date",
        type=date.fromisoformat,
        default=datetime.now(UTC).date(),
        help="of what is recorded; default: today",
    )
    parser.add_argument("--into", type=Path, default=FOLDER, metavar="FOLDER")
    arguments = parser.parse_args()
    try:
        draw(arguments.files, arguments.into, recorded=arguments.date if arguments.record else None)
    except BenchmarkError as error:
        sys.exit(f"plots: {error}")


if __name__ == "__main__":
    main()
