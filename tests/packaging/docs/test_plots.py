"""The plots of docs/performance.md can be drawn again, and its history is whole."""

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

from tests.support.pages import ROOT

HISTORY = ROOT / "docs/performance/history.json"
MEASURED = {
    "machine": {"cores": 2},
    "quick": False,
    "notes": [],
    "figures": [
        {
            "name": name,
            "unit": unit,
            "more_is_better": unit == "calls/s",
            "bar": bar,
            "bar_of": "ratio",
            "rounds": [{"value": 3000, "ceiling": 4000}, {"value": 3100, "ceiling": 4000}],
        }
        for name, unit, bar in (
            ("CreateJob, SQLite", "calls/s", 0.8),
            ("CreateJob, SQLite: server CPU", "µs/call", None),
        )
    ],
}


def plots(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.plots", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )


def written(folder: Path, **changes: object) -> Path:
    file = folder / "bench.json"
    file.write_text(json.dumps(MEASURED | changes))
    return file


def drawn(folder: Path, file: Path) -> dict[str, bytes]:
    folder.mkdir()
    run = plots("--record", "--date", "2026-12-01", "--into", folder, file)
    assert run.returncode == 0, run.stderr
    return {plot.name: plot.read_bytes() for plot in folder.iterdir()}


def test_the_history_is_in_order_and_each_figure_has_its_unit() -> None:
    runs = json.loads(HISTORY.read_text(encoding="utf-8"))
    days = [date.fromisoformat(run["date"]) for run in runs]
    assert days == sorted(days)
    for run in runs:
        assert {"cores", "python", "grpcio"} <= set(run["machine"])
        for figure in run["figures"].values():
            assert set(figure) == {"unit", "value", "ratio"}


def test_the_same_figures_are_drawn_as_the_same_bytes(tmp_path: Path) -> None:
    file = written(tmp_path)
    first = drawn(tmp_path / "first", file)
    assert set(first) == {"throughput.svg", "costs.svg", "history.svg", "history.json"}
    assert b"0.76, \xe2\x89\xa5 0.80 missed" in first["throughput.svg"]
    assert drawn(tmp_path / "second", file) == first


def test_a_coarse_run_is_not_recorded(tmp_path: Path) -> None:
    run = plots("--record", "--into", tmp_path, written(tmp_path, quick=True))
    assert run.returncode == 1
    assert "--quick" in run.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["bench.json"]


def test_another_file_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text("[]")
    run = plots("--into", tmp_path, file)
    assert run.returncode == 1
    assert run.stderr == f"plots: {file} is not what a benchmark writes with --json\n"
