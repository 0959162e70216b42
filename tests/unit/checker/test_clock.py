"""What a jump of the service's clock excuses, and what not."""

import pytest

from tests.checker.clock import Jump, earliest_between, had_shown
from tests.checker.history import Attempt
from tests.checker.judge.validate import judge
from tests.unit.checker.histories import A1, MADE, story
from tests.unit.checker.test_validators import (
    attempts_of_a,
    both,
    operation,
    replace,
    second_attempt,
)

SECOND = 1_000_000
BACK = Jump(10 * SECOND, 6 * SECOND)
AHEAD = Jump(20 * SECOND, 50 * SECOND)


@pytest.mark.parametrize(
    ("time", "by", "shown"),
    [
        (5, 5, True),
        (6, 5, False),
        (10, 8, True),  # at 10, the clock was set back to 6
        (11, 8, False),
        (8, 5.999, False),  # 5.999 was shown only before
        (12, 11, False),
        (60, 55, False),  # set ahead, which shows nothing early
    ],
)
def test_a_clock_that_was_set_back_has_shown_later_times(
    time: float, by: float, *, shown: bool
) -> None:
    had = had_shown(round(time * SECOND), by=round(by * SECOND), jumps=[BACK, AHEAD])
    assert had is shown


@pytest.mark.parametrize(
    ("start", "end", "earliest"),
    [
        (2, 5, 2),
        (8, 9, 6),  # it may have been shown before the jump, and the end after it
        (9, 12, 6),
        (11, 15, 11),
        (15, 55, 15),
    ],
)
def test_an_attempt_may_have_had_an_earlier_lease_where_the_clock_was_set_back(
    start: int, end: int, earliest: int
) -> None:
    assert earliest_between(start * SECOND, end * SECOND, [BACK, AHEAD]) == earliest * SECOND


def test_a_jump_excuses_a_start_and_the_end_of_a_lease_as_far_as_it_goes() -> None:
    history = story()
    operation(0, told=replace(A1, due=10 * SECOND))(history)
    lost = Attempt(1, "w", "LEASE_EXPIRED", 4.0, start=9 * SECOND)
    attempts = (lost, replace(MADE["a"][0], number=2, start=14 * SECOND))
    both(second_attempt, attempts_of_a(*attempts))(history)
    # The job's time had come, and the lease ends five seconds after it was renewed at 8.
    history.jumps = [Jump(10 * SECOND, 8 * SECOND)]
    assert not any(judge(history).values())
    history.jumps = [Jump(10 * SECOND, round(8.5 * SECOND))]
    found = [violation for promise in judge(history).values() for violation in promise]
    assert ["is shorter than its lease" in violation.what for violation in found] == [True]
    history.jumps = [Jump(10 * SECOND - 1, 8 * SECOND)]
    found = [violation for promise in judge(history).values() for violation in promise]
    assert ["too early" in violation.what for violation in found] == [True]
