"""When a worker renews, and when it has to stop, by its own clock."""

import time

import pytest

from jobledger.worker.session.lease import Lease
from jobledger.worker.session.work_stream import ANSWER_TIMEOUT, MAX_ANSWER_TIMEOUT


def lease(clock, duration=60.0, granted=100.0):
    return Lease(duration, granted, clock=clock, uniform=lambda _, high: high)


def test_a_lease_is_renewed_after_a_third(clock):
    assert lease(clock, 30.0).renew_at == pytest.approx(110.0)


def test_renewals_of_jobs_claimed_together_are_spread():
    assert len({Lease(60.0, 0.0, clock=time.monotonic).renew_at for _ in range(100)}) > 50
    assert all(9.0 <= Lease(30.0, 0.0, clock=time.monotonic).renew_at <= 10.0 for _ in range(100))


def test_a_lease_expires_by_the_workers_clock_before_it_does_at_the_service(clock):
    held = lease(clock)
    assert held.deadline == pytest.approx(155.0)
    clock.now = 154.9
    assert not held.over
    clock.now = 155.0
    assert held.over


def test_a_renewal_counts_from_when_it_was_sent(clock):
    held = lease(clock)
    clock.now = 125.0
    held.renewed(120.0)
    assert held.deadline == pytest.approx(175.0)


def test_an_older_renewal_does_not_shorten_the_lease(clock):
    held = lease(clock)
    held.renewed(120.0)
    held.renewed(110.0)
    assert held.deadline == pytest.approx(175.0)


def test_the_timeout_of_a_renewal_is_within_the_rest_of_the_lease(clock):
    held = lease(clock)
    clock.now = 152.0
    assert held.renewal_timeout == pytest.approx(3.0)
    clock.now = 156.0
    # One that is due is tried nevertheless.
    assert held.renewal_timeout == pytest.approx(0.05)


@pytest.mark.parametrize("duration", [5.0, 60.0, 86400.0])
def test_two_renewals_that_time_out_leave_time_in_the_lease(clock, duration):
    held = lease(clock, duration)
    timeout = min(duration * ANSWER_TIMEOUT, MAX_ANSWER_TIMEOUT)
    renewals = held.renew_at + 2 * (timeout + held.longest_pause)
    assert renewals < held.deadline


def test_a_wait_that_ends_a_third_of_the_lease_late_is_noted_until_the_next_renewal(clock):
    held = lease(clock)
    clock.now = 130.0
    held.waited(until=111.0)
    assert held.blocked == 0.0
    clock.now = 150.0
    held.waited(until=125.0)
    assert held.blocked == pytest.approx(25.0)
    held.renewed(120.0)  # sent before that
    assert held.blocked == pytest.approx(25.0)
    held.renewed(150.0)
    assert held.blocked == 0.0
