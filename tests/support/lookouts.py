"""Lookouts whose findings a test reads."""

import asyncio
from collections.abc import Callable

from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.maintenance.lookout import Lookout
from jobledger_server.store import FeedHead, Store
from jobledger_server.tuning import Tuning


def lookout(
    store: Store,
    ledger: Ledger,
    waiters: ClaimWaiters,
    *,
    overdue: asyncio.Event | None = None,
    due: asyncio.Event | None = None,
    heard: Callable[[FeedHead, float], None] = lambda head, asked_at: None,
    tuning: Tuning = Tuning(),
) -> Lookout:
    """Make a lookout; what the test does not read is dropped."""
    return Lookout(
        store,
        ledger,
        waiters,
        overdue=overdue or asyncio.Event(),
        due=due or asyncio.Event(),
        heard=heard,
        tuning=tuning,
    )
