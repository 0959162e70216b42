"""The judges of what the database held: what they let pass and what they do not."""

from dataclasses import replace

import pytest

from tests.checker.clock import Jump
from tests.checker.history import (
    Fault,
    Operation,
    Outcome,
    Recount,
    Share,
    Start,
    Unblocked,
)
from tests.checker.judge.queues import LATE_SECONDS, MOST_APART, MOST_OVERTAKING
from tests.checker.judge.validate import judge
from tests.unit.checker.histories import story

LEVEL = ("render", 5)


@pytest.mark.parametrize(
    ("found", "promise"),
    [
        (Recount(5.0), None),
        (Recount(5.0, miscounted=("level render",)), "counted"),
        (Recount(5.0, forgotten=("key s3",)), "unblocked"),
        (Recount(5.0, doubles=("ada invoice-1",)), "single"),
        (Recount(5.0, shares=(Share(LEVEL, -MOST_APART, MOST_APART),)), None),
        (Recount(5.0, shares=(Share(LEVEL, -MOST_APART - 1, 0),)), "fair"),
        (Recount(5.0, shares=(Share(LEVEL, 0, MOST_APART + 1),)), "fair"),
        (Recount(5.0, overdue=LATE_SECONDS), None),
        (Recount(5.0, overdue=LATE_SECONDS + 1), "scheduled"),
    ],
)
def test_each_recount_is_judged(found: Recount, promise: str | None) -> None:
    history = story()
    history.recounts = [Recount(4.0), found]
    assert [name for name, broken in judge(history).items() if broken] == [promise] * bool(promise)


def test_a_job_may_be_late_while_something_is_broken_and_shortly_after() -> None:
    history = story()
    history.recounts = [Recount(20.0, overdue=LATE_SECONDS + 1)]
    for began, ended, late in ((1.0, 5.0, True), (1.0, 15.0, False), (19.0, 0.0, False)):
        history.faults = [Fault("SIGSTOP", began, ended)]
        assert bool(judge(history)["scheduled"]) is late


def test_each_start_is_judged() -> None:
    history = story()
    history.starts = [Start("a", "s3")]
    assert not any(judge(history).values())
    history.starts.append(Start("b", "s3", "its key is full"))
    assert len(judge(history)["limited"]) == 1
    history.starts = [Start("a", "s3", due=8, time=8), Start("b", "s3", due=8, time=7)]
    assert len(judge(history)["limited"]) == 1
    history.jumps = [Jump(8, 6)]  # its time had come, and then the clock was set back
    assert not judge(history)["limited"]


def test_blocked_jobs_of_a_lower_priority_overtake_no_others_but_a_few() -> None:
    history = story()
    right, even, overtaking = Unblocked("a", 9, 5), Unblocked("b", 5, 5), Unblocked("c", 0, 5)
    history.unblocked = [even] * 100 + [right] * 5 + [overtaking] * MOST_OVERTAKING
    assert not any(judge(history).values())
    history.unblocked.append(overtaking)
    assert len(judge(history)["unblocked"]) == 1
    history.unblocked += [right] * 20  # then those were locked
    assert not any(judge(history).values())


def test_a_creation_may_return_only_a_job_with_its_unique_key() -> None:
    history = story()
    told = replace(history.records["a"].job, unique="invoice-1")
    returned = Operation("ReturnExisting", 1.0, 9.0, Outcome.ACKNOWLEDGED, "a", told=told)
    history.operations.append(replace(returned, mark="invoice-1"))
    assert not judge(history)["single"]
    history.operations.append(replace(returned, mark="invoice-2"))
    assert judge(history)["single"]
