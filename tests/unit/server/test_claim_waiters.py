"""Claims that wait: one job wakes one of them, and no wake-up is lost."""

import asyncio
from contextlib import ExitStack

from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.store import Change
from tests.support.store_writer import creation


def test_a_woken_claim_that_is_cancelled_before_it_queries_wakes_the_next() -> None:
    claim_waiters = ClaimWaiters()
    with ExitStack() as leaving, ExitStack() as staying:
        first = leaving.enter_context(claim_waiters.waiting(["render"]))
        second = staying.enter_context(claim_waiters.waiting(["render"]))
        claim_waiters.observe(Change(creation().job, 1))
        assert (first.woken_for, second.woken_for) == ("render", None)
        leaving.close()
        assert second.woken_for == "render"
        assert claim_waiters.count("render") == 1
    assert claim_waiters.count("render") == 0


def test_a_woken_claim_that_has_queried_wakes_no_other_when_it_ends() -> None:
    claim_waiters = ClaimWaiters()
    with ExitStack() as leaving, ExitStack() as staying:
        first = leaving.enter_context(claim_waiters.waiting(["render"]))
        second = staying.enter_context(claim_waiters.waiting(["render"]))
        claim_waiters.observe(Change(creation().job, 1))
        first.reset()
        leaving.close()
        assert second.woken_for is None


def test_a_claim_knows_the_job_that_woke_it_where_no_other_server_makes_jobs() -> None:
    claim_waiters = ClaimWaiters()
    job = creation().job
    for sees_every_job in (False, True):
        claim_waiters.sees_every_job = sees_every_job
        with claim_waiters.waiting(["render"]) as waiter:
            claim_waiters.observe(Change(job, 1))
            known = waiter.reset()
            assert (known is not None and known.id == job.id) == sees_every_job
            assert waiter.reset() is None


def test_a_job_that_gets_a_free_slot_is_handed_to_a_claim_or_announced() -> None:
    claim_waiters = ClaimWaiters()
    announced: list[bool] = []
    claim_waiters.announce = lambda: announced.append(True)
    job = creation().job
    with claim_waiters.waiting(["render"]) as waiter:
        claim_waiters.hand_on(job)
        assert (waiter.oldest and waiter.oldest.id, announced) == (job.id, [])
        claim_waiters.hand_on(creation().job)
        assert (waiter.reset(), announced) == (None, [True])
    claim_waiters.hand_on(job)
    assert announced == [True, True]


def test_a_claim_does_not_know_the_oldest_job_if_another_one_found_no_claim() -> None:
    claim_waiters = ClaimWaiters()
    claim_waiters.sees_every_job = True
    first, second, third = (creation().job for _ in range(3))
    with claim_waiters.waiting(["render"]) as one, claim_waiters.waiting(["render"]) as other:
        for seq, job in enumerate((first, second), start=1):
            claim_waiters.observe(Change(job, seq))
        assert [each.oldest and each.oldest.id for each in (one, other)] == [first.id, second.id]
        claim_waiters.observe(Change(third, 3))
        assert [one.reset(), other.reset()] == [None, None]


def test_a_claim_does_not_know_the_oldest_job_once_the_time_of_another_has_come() -> None:
    claim_waiters = ClaimWaiters()
    claim_waiters.sees_every_job = True
    with claim_waiters.waiting(["render"]) as one, claim_waiters.waiting(["render"]) as other:
        claim_waiters.observe(Change(creation().job, 1))
        claim_waiters.wake("render", 2)
        assert [each.woken_for for each in (one, other)] == ["render", "render"]
        assert [one.reset(), other.reset()] == [None, None]


def test_a_claim_that_ends_passes_on_what_it_knows() -> None:
    claim_waiters = ClaimWaiters()
    claim_waiters.sees_every_job = True
    job = creation().job
    with ExitStack() as leaving, claim_waiters.waiting(["render"]) as staying:
        leaving.enter_context(claim_waiters.waiting(["render"]))
        claim_waiters.observe(Change(job, 1))
        leaving.close()
    assert staying.oldest is not None
    assert staying.oldest.id == job.id


async def test_a_claim_that_begins_to_wait_during_a_drain_is_woken_at_once() -> None:
    claim_waiters = ClaimWaiters()
    claim_waiters.drain()
    with claim_waiters.waiting(["render"]) as waiter:
        async with asyncio.timeout(0.5):
            await waiter.wait(60)
