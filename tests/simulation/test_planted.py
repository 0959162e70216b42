"""The planted bugs fit the product as it is, and one is found."""

from pathlib import Path

import pytest

from tests.checker.front import Mutation
from tests.simulation.plan import plan_of
from tests.simulation.planted.bug import Bug
from tests.simulation.planted.postgresql import BUGS
from tests.simulation.planted_table import HEAD, Finding, Table
from tests.simulation.planting import PRODUCT, findings, names
from tests.simulation.simulate import simulate
from tests.support.pages import ROOT

PAGE = ROOT / "docs/project/simulation.md"

CHEAP = "ends not counted"
"""Any load comes to it at once."""

SHORT = 1.0


@pytest.mark.parametrize("bug", [*PRODUCT.values(), *BUGS.values()], ids=[*PRODUCT, *BUGS])
def test_a_bug_can_be_planted(bug: Bug) -> None:
    compile(bug.source(), bug.module, "exec")


def test_a_planted_bug_is_found() -> None:
    (finding,) = findings([CHEAP], first=1, seeds=3, load=SHORT, jobs=1)
    assert finding.broken == ["counted"]


def test_what_stands_before_the_servers_is_not_found_if_its_answers_are_right() -> None:
    result = simulate(plan_of(1, seconds=SHORT), front=Mutation)
    assert not result.broken, result.broken


def test_a_row_of_the_table_is_replaced_and_the_rest_of_the_page_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"Before\n\n{HEAD}\nAfter\n")
    missed, found = (
        Finding("b", "wrong.", "memory", 9),
        Finding("b", "wrong", "memory", 7, ["kept"]),
    )
    for finding in (missed, Finding("a", "bad", "sqlite", 3, ["fair", "kept"])):
        Table(page, ["a", "b"]).add(finding)
    assert Table(page, []).found == {"a"}
    Table(page, ["a", "b"]).add(found)
    assert Table(page, []).found == {"a", "b"}
    rows = "| a | bad | sqlite | 3 | fair, kept |\n| b | wrong | memory | 7 | kept |\n"
    assert page.read_text() == f"Before\n\n{HEAD}{rows}\nAfter\n"


def test_the_page_has_rows_of_planted_bugs_only() -> None:
    assert Table(PAGE, []).rows.keys() <= set(names())
