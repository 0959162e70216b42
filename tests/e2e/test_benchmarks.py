"""The benchmarks: each scenario has results, and fails if a change is not in the database."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compare, counting
from benchmarks.__main__ import COMMANDS, SCENARIOS, main, parser
from benchmarks.load import CHANGES, IN_FLIGHT
from benchmarks.measure import Work, lifecycles, measure
from benchmarks.peers import table
from benchmarks.processes import ANSWER_SECONDS, BenchmarkError, Generator
from benchmarks.targets import Server, new_database
from tests.support.pages import pages, text_of

SMALL = ("--database", "SQLite", "--rounds", "1", "--seconds", "0.05")
SMALLER = {
    "unary": ("--in-flight", "8", "--calls", "10", "--jobs", "32"),
    "streams": ("--streams", "2", "--window", "10", "--jobs", "20"),
    "batches": ("--in-flight", "1"),
    "watch": ("--watches", "20", "--jobs", "10", "--rate", "200"),
    "web": ("--streams", "20", "--jobs", "10", "--rate", "100", "--idle", "0"),
    "claims": ("--backlog", "1500", "--jobs", "2", "--idle", "0.2"),
    "reactions": ("--jobs", "2"),
    "lifecycle": ("--lifecycles", "10"),
    "backlog": ("--jobs", "20000"),
    "growth": ("--jobs", "20000", "--calls", "2", "--waiting", "1000"),
    "due": ("--jobs", "400"),
    "failing": ("--jobs", "3", "--first", "0", "--watched", "4"),
    "restart": ("--watches", "16"),
    "security": ("--in-flight", "8", "--jobs", "32"),
    "payloads": ("--jobs", "8", "--in-flight", "4"),
    "limits": ("--watches", "100", "--stall", "0.2", "--minutes", "0"),
}
"""Options that make a scenario small, where it has some of its own."""


@pytest.mark.parametrize(
    "command", [*(("run", name) for name in (*SCENARIOS, "all")), *((c,) for c in COMMANDS)]
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
    assert "compare main ." in named
    for arguments in named:
        parser().parse_args(shlex.split(arguments))


@pytest.mark.slow  # each starts servers of its own, and makes load
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_a_scenario_prints_results_with_units(name: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert main(["run", name, *SMALL, *SMALLER[name], "--json", str(file)]) == 0
    figures = json.loads(file.read_text())["figures"]
    assert figures
    assert all(figure["unit"] and figure["rounds"] for figure in figures)
    assert all(value > 0 for f in figures if f["kind"] == "rate" for value, _ in f["rounds"])


@pytest.mark.slow
def test_all_scenarios_run_with_their_default_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in set(SCENARIOS) - {"batches", "reactions"}:  # two that need no time by default
        monkeypatch.delitem(SCENARIOS, name)
    options = {"jobs": (2, "jobs of each round")}
    monkeypatch.setitem(SCENARIOS, "reactions", replace(SCENARIOS["reactions"], options=options))
    assert main(["run", "all", *SMALL, "--json", str(tmp_path / "run.json")]) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"run-batches.json", "run-reactions.json"}
    assert capsys.readouterr().out.count("sqlalchemy") == 2


@pytest.mark.slow
def test_a_profile_shows_where_the_time_is_spent(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "CreateJob", "--seconds", "1"]) == 0
    printed = capsys.readouterr().out
    assert "µs of the server's CPU for each" in printed
    assert "(jobledger_server/" in printed


@pytest.mark.slow
def test_a_comparison_has_each_result_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, small in (
        ("compare.WORKS", (compare.WORKS[0], lifecycles(10))),  # `run` has tried all of them
        ("compare.WARM_UP_SECONDS", 0.02),
        ("compare.SLICE_SECONDS", 0.05),
        ("compare.WATCHES", 20),
        ("compare.FEED_WATCHES", 5),
        ("compare.CHANGES", 1),
        ("counting.ALONE", counting.ALONE[:1]),
    ):
        monkeypatch.setattr(f"benchmarks.{name}", small)
    file = tmp_path / "figures.json"
    only = ("--rounds", "1", "--database", "SQLite", "--json", str(file))
    assert main(["compare", ".", ".", *only]) == 0
    figures = json.loads(file.read_text())["figures"]
    assert {"server CPU", "statements", "write-ahead log", "memory", "rate", "time"} == {
        figure["kind"] for figure in figures
    }
    assert all(min(pair) > 0 for figure in figures for pair in figure["rounds"])
    assert {figure["word"] for figure in figures} == {"too few rounds"}


@pytest.mark.slow
def test_jobledger_runs_the_same_lifecycles_as_its_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are not installed here."""
    monkeypatch.setattr(table, "WARM_UP", IN_FLIGHT)
    measured = table.measure("jobledger-sqlite", 3 * IN_FLIGHT)
    assert measured.rate > 0
    assert measured.updates_seen > 1


@pytest.mark.slow
def test_a_worker_of_unary_calls_makes_each_change_of_a_whole_lifecycle(tmp_path: Path) -> None:
    work = lifecycles(3, one_watch=True, unary=True)
    with (
        new_database("SQLite", tmp_path) as database,
        Server(database) as server,
        Generator() as owners,
        Generator() as worker,
    ):
        usage = measure(server, [owners, worker], work)
        (streams,) = database.fetch("SELECT count(*) FROM jobs WHERE worker_id = 'worker-1'")
    (reply,) = usage.replies
    assert reply["changes"] == 3 * CHANGES
    assert streams == (0,)  # that is the worker of the worker library
    assert usage.worker["answered"].keys() == reply["observed"].keys()
    assert all(0 < delay < ANSWER_SECONDS for delay in reply["delays"])


class TooMany(Generator):
    """Says that so many calls more were acknowledged than the server has acknowledged."""

    too_many = 0

    def end(self) -> dict[str, Any]:
        reply = super().end()
        return {**reply, "done": reply["done"] + self.too_many}


def test_a_run_fails_if_an_acknowledged_change_is_not_in_the_database(tmp_path: Path) -> None:
    work = Work.calls("CreateJob", "create", 2)
    with (
        new_database("SQLite", tmp_path) as database,
        Server(database) as server,
        TooMany() as generator,
    ):
        usage = measure(server, [generator], work, 0.05)
        assert database.feed_seq() == usage.done > 0
        generator.too_many = 1
        with pytest.raises(BenchmarkError, match="committed"):
            measure(server, [generator], work, 0.05)
