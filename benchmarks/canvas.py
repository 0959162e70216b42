"""What plots are drawn on: one look, small files, and the same bytes for the same figures."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from benchmarks.processes import BenchmarkError

WIDTH_INCHES = 9.0
ROW_INCHES = 0.27
FRAME_INCHES = 0.9
"""What is around the rows: title, legend, scale."""

SURFACE, INK, QUIET, LINES, CEILING = "#fcfcfb", "#0b0b0b", "#52514e", "#d9d8d3", "#a5a49e"
BLUE, ORANGE = "#3987e5", "#d95926"
"""These can be told from either surface, and from each other by those who see few colours."""

DARK = {SURFACE: "#1a1a19", INK: "#ffffff", QUIET: "#c3c2b7", LINES: "#3a3a37", CEILING: "#7d7c76"}
"""What takes their place where the reader prefers dark."""

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jobledger",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],
    "font.size": 9,
    "text.color": INK,
    "figure.facecolor": SURFACE,
    "axes.facecolor": SURFACE,
    "axes.edgecolor": LINES,
    "axes.labelcolor": QUIET,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.bottom": False,
    "grid.color": LINES,
    "grid.linewidth": 0.6,
    "xtick.color": QUIET,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


@contextmanager
def drawing(file: Path, height: float) -> Iterator[Any]:
    """Draw on a figure of so many inches; it is written as SVG at the end of the block.

    Raises BenchmarkError.
    """
    try:
        # Wanted only where it is used.
        import matplotlib as mpl  # noqa: PLC0415
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise BenchmarkError("drawing needs matplotlib: make setup") from None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
        yield figure
        text = StringIO()
        # Neither the day nor the version of what draws.
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    file.write_text(_for_dark_too(text.getvalue()), encoding="utf-8")


def add_legend(figure: Any, colours: Mapping[str, str]) -> None:
    """Say above everything what the colours are."""
    from matplotlib.patches import Patch  # noqa: PLC0415

    handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))


def name_rows(axes: Any, names: Sequence[str]) -> None:
    """Write what each row is, the first one above."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines.left.set_color(LINES)


def _for_dark_too(svg: str) -> str:
    """Add the dark colours, and take away the blanks at the ends of lines."""
    rules = "".join(
        f"[style*='{use}: {light}']{{{use}: {dark} !important}}"
        for light, dark in DARK.items()
        for use in ("fill", "stroke")
    )
    dark = f"@media (prefers-color-scheme: dark){{{rules}}}</style>"
    lines = svg.replace("</style>", dark, 1).splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"
