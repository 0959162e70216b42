"""What is tried again after the database was unavailable."""

import pytest

from jobledger_server.ledger.stale_connections import retry_if_stale
from jobledger_server.store import StoreUnavailable


class Failing:
    """Fails a number of times, and remembers how often it was tried."""

    def __init__(self, failures: int, *, stale: bool) -> None:
        self.tried = 0
        self._failures = failures
        self._stale = stale

    async def __call__(self) -> str:
        self.tried += 1
        if self.tried <= self._failures:
            raise StoreUnavailable("gone", stale=self._stale)
        return "done"


async def test_what_met_a_dead_connection_is_tried_once_more() -> None:
    assert await retry_if_stale(Failing(1, stale=True)) == "done"
    failing = Failing(2, stale=True)
    with pytest.raises(StoreUnavailable):
        await retry_if_stale(failing)
    assert failing.tried == 2


async def test_what_may_have_been_committed_is_not_tried_again() -> None:
    failing = Failing(1, stale=False)
    with pytest.raises(StoreUnavailable):
        await retry_if_stale(failing)
    assert failing.tried == 1
