"""The benchmarks: each that is kept runs, small, and those that pages name exist."""

import json
import re
import shlex
from pathlib import Path

import pytest

from benchmarks import compare, counting
from benchmarks.__main__ import SCENARIOS, main, parser
from benchmarks.load import IN_FLIGHT
from benchmarks.measure import lifecycles
from benchmarks.peers import table
from tests.support.pages import pages, text_of

SMALL = ("--database", "SQLite", "--rounds", "1", "--seconds", "0.05")
SMALLER = {
    "unary": ("--in-flight", "8", "--calls", "10", "--jobs", "32"),
    "lifecycle": ("--lifecycles", "10"),
    "watch": ("--watches", "20", "--jobs", "10", "--rate", "200"),
    "growth": ("--jobs", "20000", "--calls", "2"),
    "claims": ("--backlog", "1500", "--jobs", "2", "--idle", "0.2"),
    "output": ("--jobs", "10", "--readers", "20", "--idle", "20", "--megabytes", "1"),
}
"""Options that make a scenario small."""


def test_every_benchmark_that_a_page_names_can_be_run() -> None:
    texts = [text_of(page) for page in pages() if page.parent.name != "decisions"]
    named = set(re.findall(r'make bench ARGS="([^"]+)"', "\n".join(texts)))
    assert "compare main ." in named
    for arguments in named:
        parser().parse_args(shlex.split(arguments))


@pytest.mark.slow  # each starts servers of its own, and makes load
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_prints_results_with_units(name: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert main(["run", name, *SMALL, *SMALLER[name], "--json", str(file)]) == 0
    figures = json.loads(file.read_text())["figures"]
    assert figures
    assert all(figure["unit"] and figure["rounds"] for figure in figures)
    assert all(value > 0 for f in figures if f["kind"] == "rate" for value, _ in f["rounds"])


@pytest.mark.slow
def test_a_comparison_has_each_result_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, small in (
        ("compare.WORKS", (*compare.WORKS[:3], lifecycles(10))),
        ("compare.WARM_UP_SECONDS", 0.02),
        ("compare.SLICE_SECONDS", 0.05),
        ("compare.WATCHES", 20),
        ("compare.FEED_WATCHES", 5),
        ("compare.CHANGES", 1),
        ("counting.ALONE", counting.ALONE[:1]),
    ):
        monkeypatch.setattr(f"benchmarks.{name}", small)
    file = tmp_path / "figures.json"
    only = ("--rounds", "1", "--database", "PostgreSQL", "--away", "1", "--json", str(file))
    assert main(["compare", ".", ".", *only]) == 0
    figures = json.loads(file.read_text())["figures"]
    assert {figure["kind"] for figure in figures} == {
        *("server CPU", "database CPU", "statements", "round trips", "write-ahead log"),
        *("memory", "rate", "time"),
    }
    assert all(min(pair) > 0 for figure in figures for pair in figure["rounds"])
    assert {figure["word"] for figure in figures} == {"too few rounds"}


@pytest.mark.slow
def test_jobledger_runs_the_same_lifecycles_as_its_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are not installed here."""
    monkeypatch.setattr(table, "WARM_UP", IN_FLIGHT)
    measured = table.measure("jobledger-sqlite", 3 * IN_FLIGHT, IN_FLIGHT)
    assert measured.rate > 0
    assert measured.updates_seen > 1
