"""Saved plans, each of a fault that was mended, and what a plan decides."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from jobledger_server.settings import Settings
from jobledger_server.tuning import Tuning
from tests.checker.load import Size
from tests.simulation import knobs
from tests.simulation.plan import Plan, load, plan_of, save
from tests.simulation.shrink import Shrinker
from tests.simulation.simulate import Result, simulate

PLANS = sorted((Path(__file__).parent / "plans").glob("*.json"))

SHORT = 1.0
"""Simulated seconds of load that are enough for hundreds of changes."""


@pytest.mark.parametrize("file", PLANS, ids=lambda file: file.stem)
def test_a_saved_plan_breaks_nothing(file: Path) -> None:
    result = simulate(load(file))
    assert not result.broken, result.broken


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    plan = plan_of(7, "sqlite")
    assert plan.faults
    save(plan, tmp_path / "plan.json")
    assert load(tmp_path / "plan.json") == plan


def test_each_knob_is_one_of_the_product() -> None:
    for values, owner in (
        (knobs.TUNING, Tuning),
        (knobs.SETTINGS, Settings),
        (knobs.LOAD, Size),
    ):
        assert values.keys() <= {field.name for field in fields(owner)}


def short_run() -> str:
    """Return the hash of a run, which breaks no promise."""
    result = simulate(plan_of(1, seconds=SHORT))
    assert not result.broken, result.broken
    return result.hash


def test_a_plan_gives_the_same_run_in_another_process() -> None:
    """Neither the order of hashed sets nor the addresses of objects decides anything.

    `make test-pythons` compares runs on SQLite, too.
    """
    other = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    program = f"from {__name__} import short_run; print(short_run())"
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": other},
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout.strip() == short_run()


def test_a_plan_that_fails_is_made_small() -> None:
    """What fails needs one fault, one knob and a second of load, and is left with these."""
    plan = plan_of(3)
    needed = plan.faults[2]
    assert needed.at < 1.5 < plan.seconds

    def run(plan: Plan) -> Result:
        fails = needed in plan.faults and "rate" in plan.load
        broken = {"ordered": ["so"]} if fails else {}
        return Result(plan=plan, broken=broken)

    found = Shrinker(run(plan), run).shrink().plan
    assert found.faults == (needed,)
    assert found.seconds < plan.seconds / 4
    assert (found.servers, found.shuffle, found.tuning, found.settings) == (1, 0.0, {}, {})
    assert found.load.keys() == {"rate"}
