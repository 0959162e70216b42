"""The judges over a worker's stream of Work, made by hand."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.checker.history import (
    Attempt,
    Fault,
    History,
    Hold,
    Outcome,
    Record,
    Snapshot,
    Step,
)
from tests.checker.judge.holding import DELIVERY_SECONDS
from tests.checker.judge.validate import judge
from tests.unit.checker.histories import done, given

START, END = Step(2, "QUEUED", "PROCESSING"), Step(6, "PROCESSING", "FAILED")


def job(version: int, status: str = "PROCESSING", message: str = "") -> Snapshot:
    content = f"{version} {status} {message}".encode()
    return Snapshot(
        "a",
        version,
        status,
        attempt=min(1, version - 1),
        content=content,
        message=message,
        worker="w",
        held=status == "PROCESSING",
    )


A1, A2, A3, A4 = job(1, "QUEUED"), job(2), job(3, message="m1"), job(4, message="m2")
A5, A6 = job(5, message="m2"), job(6, "FAILED", message="m2")


FULL = replace(A6, parameters="create a", result="end a")
MADE = (Attempt(1, "w", "FAILED", 4.0, reason="STOPPED"),)


def story() -> History:
    """A job is pushed, reported on twice, cancelled and finished by its worker."""
    unseen = {"told": None}
    return History(
        operations=[
            done("CreateJob", 1, A1, mark="create a"),
            done("Work", 2, given(A2, "create a")),
            done("UpdateProgress", 3, A3, mark="m1", version=3, **unseen),
            done("UpdateProgress", 4, A4, mark="m2", version=4, **unseen),
            done("CancelJob", 5, A5, changed=False),
            done("MarkFailed", 6, A6, mark="end a", version=6, **unseen),
            done("GetJob", 3.6, A3, changed=False),
            done("GetJob", 4.6, A4, changed=False),
        ],
        holds=[Hold("w", "a", 1, began=2.5, asked=5.6, ended=6.5)],
        records={"a": Record(FULL, (START, END), (), MADE, "create a", "end a")},
        load_ended=7.0,
    )


LATE = 5.5 + DELIVERY_SECONDS + 0.1
RESUMED = Hold("w", "a", 1, began=5.6, resumed=True, greeted=5.8, asked=5.8, ended=6.5)

Spoil = Callable[[History], object]


def operation(number: int, **fields: object) -> Spoil:
    def spoil(history: History) -> None:
        history.operations[number] = replace(history.operations[number], **fields)

    return spoil


def held(**fields: object) -> Spoil:
    return lambda history: history.holds.append(replace(history.holds.pop(), **fields))


def resumed(**fields: object) -> Spoil:
    return lambda history: history.holds.append(replace(RESUMED, **fields))


def fault(**fields: object) -> Spoil:
    return lambda history: history.faults.append(Fault("SIGSTOP", **fields))


SPOILT: dict[str, tuple[str, list[Spoil]]] = {
    "a job on two streams": (
        "atomic: given to 2 workers",
        [lambda history: history.operations.append(done("Work", 2, given(A2, "create a")))],
    ),
    "an update that is not there": ("kept: has only 6", [operation(3, version=7)]),
    "an update that is another": (
        "kept: which says other",
        [operation(7, told=replace(A4, message="other"))],
    ),
    "two updates of one version": ("kept: like UpdateProgress", [operation(3, version=3)]),
    "the result of another update": ("ordered: result of b", [operation(3, result_of="b")]),
    "a finish that is another": ("kept: ended by", [operation(5, mark="other")]),
    "a report that is applied again": (
        "atomic: applied again",
        [operation(4, told=replace(A5, message="m1"))],
    ),
    "a cancellation that does not come": ("cancelled", [held(asked=None, ended=LATE)]),
    "a cancellation that comes late": ("cancelled", [held(asked=LATE, ended=LATE)]),
    "a cancellation that does not come to one that stays": (
        "cancelled",
        [held(asked=None, ended=None)],
    ),
    "a cancellation that is not brought along": ("cancelled", [resumed(asked=None)]),
    "a cancellation that is brought along late": ("cancelled", [resumed(asked=5.9)]),
    "one that does not come to a stream that was being opened": (
        "cancelled",
        [resumed(began=5.4, asked=None, ended=LATE + 0.3)],
    ),
}


def test_a_correct_history_of_work_streams_breaks_no_promise() -> None:
    assert not any(judge(story()).values()), judge(story())


@pytest.mark.parametrize("name", SPOILT)
def test_a_history_that_breaks_a_promise_is_found(name: str) -> None:
    broken, spoils = SPOILT[name]
    promise, _, words = broken.partition(": ")
    history = story()
    for spoil in spoils:
        spoil(history)
    found = judge(history)
    assert any(words in violation.what for violation in found[promise]), found


ALLOWED: dict[str, list[Spoil]] = {
    "it is brought along": [resumed()],
    "the stream was being opened, which took long": [
        resumed(began=5.4, greeted=LATE, asked=LATE, ended=LATE + 1)
    ],
    "the job was lost before": [resumed(asked=None, ended=5.8)],
    "the job's finish is brought along": [resumed(asked=None, finishing=True)],
    "the next stream broke before its first message": [resumed(asked=None, greeted=None)],
    "the job was finished first": [held(asked=None)],
    "the worker was frozen": [held(asked=None, ended=LATE, frozen=True)],
    "something was broken": [held(asked=LATE, ended=LATE), fault(began=5.2)],
    "something had been broken just before": [
        held(asked=LATE, ended=LATE),
        fault(began=1.0, recovers_from=2.0),
    ],
    "the cancellation is of unknown outcome": [
        held(asked=None, ended=LATE),
        operation(4, outcome=Outcome.UNKNOWN),
    ],
    "it is another attempt": [held(asked=None, ended=LATE, attempt=2)],
}


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed_behavior_is_no_violation(name: str) -> None:
    history = story()
    for spoil in ALLOWED[name]:
        spoil(history)
    assert not any(judge(history).values()), judge(history)
