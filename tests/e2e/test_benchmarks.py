"""The benchmarks: each scenario gives figures, and fails where a change is not in the database."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cli import COMMANDS, SCENARIOS, main, parser
from benchmarks.gauge import Committed, Gauge, Reading
from benchmarks.processes import BenchmarkError, Generator
from benchmarks.targets import serving
from tests.support.pages import pages, text_of

SMALL = ("--database", "SQLite", "--rounds", "1", "--seconds", "0.1")
SMALLER = {
    "unary": ("--in-flight", "8", "--calls", "10", "--jobs", "32"),
    "streams": ("--window", "10"),
    "batches": ("--in-flight", "1"),
    "watch": ("--watches", "20", "--jobs", "10", "--rate", "100"),
    "claims": ("--backlog", "3000", "--jobs", "2", "--expiring", "2", "--idle", "0.2"),
    "lifecycle": ("--lifecycles", "150"),
    "growth": ("--jobs", "20000", "--calls", "2"),
    "restart": ("--watches", "40"),
    "limits": ("--watches", "100", "--minutes", "0"),
}
"""Options that make a scenario small, where it has some of its own."""


@pytest.mark.parametrize(
    "command", [*(("run", name) for name in SCENARIOS), *((c,) for c in COMMANDS)]
)
def test_a_benchmark_explains_itself(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    assert "usage:" in capsys.readouterr().out


def test_every_benchmark_that_a_page_names_can_be_run() -> None:
    texts = [text_of(page) for page in pages() if page.parent.name != "decisions"]
    named = set(re.findall(r'make bench ARGS="([^"]+)"', "\n".join(texts)))
    assert {"run unary", "compare REV_A REV_B"} <= named
    for arguments in named:
        parser().parse_args(shlex.split(arguments))


@pytest.mark.parametrize("name", sorted(SMALLER))
def test_a_scenario_gives_figures_with_units(name: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert main(["run", name, *SMALL, *SMALLER[name], "--json", str(file)]) == 0
    figures = json.loads(file.read_text())["figures"]
    assert {"cost", "time"} & {figure["kind"] for figure in figures}
    assert all(figure["unit"] and figure["rounds"] for figure in figures)
    assert all(figure["value"] > 0 for figure in figures if figure["kind"] == "rate")


def test_a_profile_says_where_the_time_goes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "CreateJob", "--seconds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "µs of the server's CPU for each" in printed
    assert "jobledger_server/ledger" in printed


def test_a_comparison_has_each_figure_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, small in (("SLICE_SECONDS", 0.05), ("WATCHERS", 20), ("FEED_WATCHERS", 5)):
        monkeypatch.setattr(f"benchmarks.compare.{name}", small)
    file = tmp_path / "figures.json"
    only = ("--rounds", "1", "--database", "SQLite", "--json", str(file))
    assert main(["compare", ".", ".", *only]) == 0
    figures = json.loads(file.read_text())["figures"]
    assert {"server CPU", "statements", "write-ahead log", "memory", "rate", "time"} == {
        figure["kind"] for figure in figures
    }
    assert all(min(pair) > 0 for figure in figures for pair in figure["rounds"])
    assert {figure["word"] for figure in figures} == {"too few rounds"}


class OneTooMany(Generator):
    """Says that one call more was acknowledged than the server has acknowledged."""

    def end(self) -> dict[str, Any]:
        reply = super().end()
        return {**reply, "calls": reply["calls"] + 1}


def test_a_run_fails_where_an_acknowledged_change_is_not_in_the_database(tmp_path: Path) -> None:
    committed = Committed()

    def create(generator: Generator) -> Reading:
        gauge = Gauge([generator], seconds=0.1, warm_up=0.0)
        return committed.checked(server, lambda: gauge.rate(server, "create", in_flight=2), each=1)

    with serving("SQLite", tmp_path) as server:
        with Generator() as honest:
            assert create(honest).calls == committed.changes > 0
        with OneTooMany() as dishonest, pytest.raises(BenchmarkError, match="committed"):
            create(dishonest)
