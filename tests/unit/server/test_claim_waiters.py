"""Claims that wait: one job wakes one of them, and no wake-up is lost."""

from contextlib import ExitStack

from jobledger_server.ledger.claim_waiters import Openings
from jobledger_server.store import Change
from tests.support.store_writer import creation


def test_a_claim_that_is_woken_and_ends_without_asking_wakes_the_next() -> None:
    openings = Openings()
    with ExitStack() as leaving, ExitStack() as staying:
        first = leaving.enter_context(openings.seeking(["render"]))
        second = staying.enter_context(openings.seeking(["render"]))
        openings.observe(Change(creation().job, 1))
        assert (first.woken_for, second.woken_for) == ("render", None)
        leaving.close()
        assert second.woken_for == "render"
        assert openings.waiters("render") == 1
    assert openings.waiters("render") == 0


def test_a_claim_that_asked_after_it_was_woken_wakes_nobody_when_it_ends() -> None:
    openings = Openings()
    with ExitStack() as leaving, ExitStack() as staying:
        first = leaving.enter_context(openings.seeking(["render"]))
        second = staying.enter_context(openings.seeking(["render"]))
        openings.observe(Change(creation().job, 1))
        first.rest()
        leaving.close()
        assert second.woken_for is None
