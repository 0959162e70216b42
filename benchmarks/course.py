"""How the main figures have changed, drawn run by run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.canvas import BLUE, ORANGE, QUIET, add_legend, drawing
from benchmarks.history import Run
from benchmarks.spending import SERVER

DATABASES = {"SQLite": BLUE, "PostgreSQL": ORANGE}
CALLS = ("CreateJob", "UpdateProgress", "GetJob", "ReportProgress")
COLUMNS = len(CALLS)
PANELS = {
    **{f"{call}: rate": f"{call}, {{}}" for call in CALLS},
    **{f"{call}: server CPU": f"{call}, {{}}{SERVER}" for call in CALLS},
    "BatchCreateJobs: rate": "BatchCreateJobs of 500, {}",
    "BatchCreateJobs: server CPU": "BatchCreateJobs of 500, {}" + SERVER,
    "CreateJob alone: p50": "CreateJob, one caller, p50, {}",
    "10,000 watchers told": "one change to 10,000 watchers: all have it",
}
"""What the history shows: the figures' names, with a place for the database if they have one."""


def draw_history(runs: Sequence[Run], file: Path) -> None:
    """Draw the ratios of the main figures, run by run."""
    if not runs:
        return
    with drawing(file, 5.5) as canvas:
        grid = canvas.subplots(len(PANELS) // COLUMNS, COLUMNS, sharex=True)
        for axes, (title, name) in zip(grid.flat, PANELS.items(), strict=True):
            for database, colour in DATABASES.items():
                ratios = [run.ratio(name.format(database)) for run in runs]
                places = [place for place, ratio in enumerate(ratios) if ratio is not None]
                measured = [ratio for ratio in ratios if ratio is not None]
                axes.plot(places, measured, color=colour, marker="o", markersize=4)
                if "{}" not in name:
                    break
            axes.axhline(1, color=QUIET, linewidth=1, linestyle="--")
            axes.set_title(title)
            axes.locator_params(axis="y", nbins=4)
            axes.set_ylim(0, 1.1 * max(1, axes.dataLim.y1))
        _name_places(axes, [run.date for run in runs])
        add_legend(canvas, {**DATABASES, "1.0: the ceiling": QUIET})


def _name_places(axes: Any, dates: Sequence[str]) -> None:
    """Write the first date and the last one: there is no room for more."""
    last = len(dates) - 1
    shown = sorted({0, last})
    axes.set_xticks(shown, [dates[place] for place in shown])
    axes.set_xlim(-0.5, last + 0.5)
