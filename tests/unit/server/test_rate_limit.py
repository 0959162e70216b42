"""Rates: what a caller may do at once, how it recovers, and what is remembered."""

import asyncio

import pytest
from google.rpc import code_pb2

from jobledger_server.admission import rates
from jobledger_server.admission.caller import Caller, Identity, Permissions, Quotas
from jobledger_server.admission.rates import RateLimit
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.rpc.status import status_of


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def calls(clock: Clock) -> RateLimit:
    return RateLimit("calls_per_second", lambda quotas: quotas.calls_per_second, clock)


def caller(name: str, rate: float | None) -> Caller:
    quotas = Quotas(calls_per_second=rate)
    return Caller(name, permissions=Permissions(Identity(name), quotas=quotas))


def done(limit: RateLimit, name: str, rate: float) -> int:
    """Return how often a caller may do it now."""
    for count in range(1000):
        try:
            limit.take(caller(name, rate))
        except LimitExceeded:
            return count
    return 1000


def test_a_burst_of_one_second_and_then_the_rate() -> None:
    clock = Clock()
    limit = calls(clock)
    assert done(limit, "eve", 10) == 10
    clock.now += 0.5
    assert done(limit, "eve", 10) == 5
    clock.now += 1000
    assert done(limit, "eve", 10) == 10


def test_a_rate_below_one_allows_one() -> None:
    clock = Clock()
    limit = calls(clock)
    assert done(limit, "eve", 0.1) == 1
    clock.now += 9
    assert done(limit, "eve", 0.1) == 0
    clock.now += 1
    assert done(limit, "eve", 0.1) == 1


@pytest.mark.parametrize("rate", [1e-14, 5e-324])
def test_a_refusal_by_the_lowest_rate_can_be_sent(rate: float) -> None:
    limit = calls(Clock())
    assert done(limit, "eve", rate) == 1
    with pytest.raises(LimitExceeded) as refused:
        limit.take(caller("eve", rate))
    assert status_of(refused.value).code == code_pb2.RESOURCE_EXHAUSTED


def test_callers_have_rates_of_their_own() -> None:
    limit = calls(Clock())
    assert done(limit, "eve", 3) == 3
    assert done(limit, "ada", 2) == 2


def test_a_request_heavier_than_the_rate_is_admitted_once_and_delays_the_next() -> None:
    clock = Clock()
    limit = calls(clock)
    limit.take(caller("eve", 10), 100)
    with pytest.raises(LimitExceeded) as refused:
        limit.take(caller("eve", 10))
    assert refused.value.retry_after == pytest.approx(9.1)
    clock.now += refused.value.retry_after
    limit.take(caller("eve", 10))


def test_what_is_added_later_delays_the_next_but_refuses_nothing() -> None:
    clock = Clock()
    limit = calls(clock)
    limit.take(caller("eve", 10))
    limit.add(caller("eve", 10), 20)
    with pytest.raises(LimitExceeded) as refused:
        limit.take(caller("eve", 10))
    assert refused.value.retry_after == pytest.approx(1.2)
    clock.now += 1.2
    assert done(limit, "eve", 10) == 1


def test_the_number_of_remembered_callers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MAX_REMEMBERED", 3)
    limit = calls(Clock())
    for name in ("eve", "b", "c", "eve", "d"):
        limit.take(caller(name, 2))
    assert done(limit, "eve", 2) == 0  # still remembered, because it called again
    assert done(limit, "b", 2) == 2


def test_a_caller_without_the_quota_is_not_limited() -> None:
    limit = calls(Clock())
    eve = caller("eve", None)
    limit.add(eve, 10_000)
    limit.take(eve)
    assert limit.wait_of(eve) == 0


def test_a_caller_can_wait_until_it_may_go_on() -> None:
    clock = Clock()
    limit, eve = calls(clock), caller("eve", 10)
    assert limit.wait_of(eve) == 0
    limit.add(eve, 30)
    assert limit.wait_of(eve) == pytest.approx(2.1)
    clock.now += limit.wait_of(eve)
    assert limit.wait_of(eve) == 0


async def test_two_tasks_of_a_caller_do_not_use_the_same_allowance() -> None:
    limit = calls(Clock())
    eve, begun = caller("eve", 5), asyncio.Event()

    async def use() -> float:
        async with limit.alone(eve):
            wait = limit.wait_of(eve)
            begun.set()
            await asyncio.sleep(0)  # what it is has to be found out
            limit.add(eve, 10)
            return wait

    first = asyncio.create_task(use())
    await begun.wait()
    assert await use() == pytest.approx(6 / 5)
    assert await first == 0


async def test_a_caller_without_a_quota_waits_for_nobody() -> None:
    limit = calls(Clock())
    async with limit.alone(caller("ada", None)), limit.alone(caller("ada", None)):
        pass
    async with limit.alone(caller("eve", 1)), limit.alone(caller("bob", 1)):
        pass
