"""Claims that wait: one job wakes one of them, and no wake-up is lost."""

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
