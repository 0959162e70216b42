"""The judge of creations that must be refused, and of those that must not."""

from dataclasses import replace

import pytest

from tests.checker.history import Operation, Outcome
from tests.checker.judge.validate import judge
from tests.unit.checker.histories import story


@pytest.mark.parametrize(
    ("owed", "outcome", "promise"),
    [
        (Outcome.REFUSED, Outcome.REFUSED, None),
        (Outcome.REFUSED, Outcome.UNKNOWN, None),
        (Outcome.ACKNOWLEDGED, Outcome.UNKNOWN, None),
        (Outcome.ACKNOWLEDGED, Outcome.REFUSED, "single"),
    ],
)
def test_an_owed_outcome_is_judged(owed: Outcome, outcome: Outcome, promise: str | None) -> None:
    history = story()
    history.operations.append(Operation("CreateInVain", 1, 2, outcome, mark="vain", owed=owed))
    assert [name for name, broken in judge(history).items() if broken] == [promise] * bool(promise)


def test_nothing_of_a_refused_creation_may_be_kept() -> None:
    history = story()
    history.records["a"] = replace(history.records["a"], created_by="vain")
    refused = Outcome.REFUSED
    history.operations.append(Operation("CreateInVain", 1, 2, refused, mark="vain", owed=refused))
    assert judge(history)["atomic"]
