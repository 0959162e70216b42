"""Rates: what a caller may do at once, how it recovers, and what is remembered."""

import pytest

from jobledger_server.admission import quotas
from jobledger_server.admission.quotas import RateLimit
from jobledger_server.domain.errors import LimitExceeded


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def done(limit: RateLimit, caller: str, rate: float) -> int:
    """Return how often a caller may do it now."""
    for count in range(1000):
        try:
            limit.take(caller, rate)
        except LimitExceeded:
            return count
    return 1000


def test_a_burst_of_one_second_and_then_the_rate() -> None:
    clock = Clock()
    limit = RateLimit("calls a second", clock)
    assert done(limit, "eve", 10) == 10
    clock.now += 0.5
    assert done(limit, "eve", 10) == 5
    clock.now += 1000
    assert done(limit, "eve", 10) == 10


def test_a_rate_below_one_allows_one() -> None:
    clock = Clock()
    limit = RateLimit("calls a second", clock)
    assert done(limit, "eve", 0.1) == 1
    clock.now += 9
    assert done(limit, "eve", 0.1) == 0
    clock.now += 1
    assert done(limit, "eve", 0.1) == 1


def test_callers_have_rates_of_their_own() -> None:
    limit = RateLimit("calls a second", Clock())
    assert done(limit, "eve", 3) == 3
    assert done(limit, "ada", 2) == 2


def test_a_request_heavier_than_the_rate_is_admitted_once_and_delays_the_next() -> None:
    clock = Clock()
    limit = RateLimit("jobs created a second", clock)
    limit.take("eve", 10, 100)
    with pytest.raises(LimitExceeded) as refused:
        limit.take("eve", 10)
    assert refused.value.retry_after == pytest.approx(9.1)
    clock.now += refused.value.retry_after
    limit.take("eve", 10)


def test_what_is_added_later_delays_the_next_but_refuses_nothing() -> None:
    clock = Clock()
    limit = RateLimit("calls a second", clock)
    limit.take("eve", 10)
    limit.add("eve", 10, 20)
    with pytest.raises(LimitExceeded) as refused:
        limit.take("eve", 10)
    assert refused.value.retry_after == pytest.approx(1.2)
    clock.now += 1.2
    assert done(limit, "eve", 10) == 1


def test_the_number_of_remembered_callers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quotas, "MAX_REMEMBERED", 3)
    limit = RateLimit("calls a second", Clock())
    for name in ("eve", "b", "c", "eve", "d"):
        limit.take(name, 2)
    assert done(limit, "eve", 2) == 0  # still remembered, because it called again
    assert done(limit, "b", 2) == 2
