"""What calls cost, drawn: the processor time of server and database, and what it is beside."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.canvas import (
    BLUE,
    CEILING,
    FRAME_INCHES,
    ORANGE,
    ROW_INCHES,
    add_legend,
    drawing,
    name_rows,
)
from benchmarks.report import Figure

SERVER, DATABASE = ": server CPU", ": database CPU"
BOTH, OF_IT = ": server and database CPU", ": of it database CPU"
"""How the figures of processor time end, of calls and of whole lifecycles."""


@dataclass(frozen=True)
class Cost:
    """The processor time of one kind of call, by `scale` for `each`, and what it is beside."""

    title: str
    scale: str
    each: str
    server: float
    database: float
    ceiling: float | None


def draw_costs(figures: Sequence[Figure], file: Path) -> None:
    """Draw the processor time of server and database, and below it what it is beside."""
    costs = find_costs(figures)
    if not costs:
        return
    scales = {cost.scale: [c for c in costs if c.scale == cost.scale] for cost in costs}
    rows = [len(panel) for panel in scales.values()]
    with drawing(file, FRAME_INCHES * len(rows) + 1.5 * ROW_INCHES * sum(rows)) as canvas:
        grid = canvas.subplots(len(rows), squeeze=False, height_ratios=rows)
        for axes, (scale, panel) in zip(grid[:, 0], scales.items(), strict=True):
            for row, cost in enumerate(panel):
                _draw_cost(axes, row, cost)
            axes.set_xlabel(f"{scale} of processor time")
            axes.set_xlim(0)
            name_rows(axes, [f"{cost.title} ({cost.each})" for cost in panel])
        beside = "beside it the bare stack, or etcd"
        add_legend(canvas, {"server": BLUE, "database": ORANGE, beside: CEILING})


def _draw_cost(axes: Any, row: int, cost: Cost) -> None:
    above, thick = row - 0.14, 0.42
    axes.barh(above, cost.server, height=thick, color=BLUE)
    axes.barh(above, cost.database, left=cost.server, height=thick, color=ORANGE)
    told = f"{cost.server + cost.database:.3g}"
    if cost.ceiling is not None:
        axes.barh(row + 0.22, cost.ceiling, height=0.2, color=CEILING)
        told += f" beside {cost.ceiling:.3g}"
    axes.text(1.01, row, told, transform=axes.get_yaxis_transform(), va="center")


def find_costs(figures: Sequence[Figure]) -> list[Cost]:
    """Put together what server and database took, in whichever way they were told."""
    by_name = {figure.name: figure for figure in figures}

    def value(name: str) -> float:
        return by_name[name].value if name in by_name else 0.0

    costs = []
    for figure in figures:
        for end in (SERVER, BOTH):
            title = figure.name.removesuffix(end)
            if title == figure.name:
                continue
            database = value(title + DATABASE) + value(title + OF_IT)
            server = figure.value - (database if end == BOTH else 0)
            scale, _, each = figure.unit.partition("/")
            costs.append(Cost(title, scale, each, server, database, figure.ceiling))
    return costs
