"""Lists: a few at a time, callers in turn, and each for a bounded time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jobledger_server.admission.admission import Admission
from jobledger_server.admission.fair_queue import Turns
from jobledger_server.domain.limits import LIST_SECONDS
from jobledger_server.store import StoreUnavailable

AT_ONCE = 2
"""Lists that read the database at once."""

MAX_LISTS = 1000
"""Lists under way or waiting for their turn, of all callers."""

MAX_LISTS_EACH = 100
"""The same of one caller."""


class Lists:
    """Admits lists."""

    def __init__(self) -> None:
        self._admission = Admission("lists", total=MAX_LISTS, each=MAX_LISTS_EACH)
        self._turns = Turns(AT_ONCE)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the caller's turn; then the block may take LIST_SECONDS.

        Raises LimitExceeded; StoreUnavailable if it takes longer.
        """
        with self._admission.admit():
            async with self._turns.turn():
                try:
                    async with asyncio.timeout(LIST_SECONDS):
                        yield
                except TimeoutError:
                    raise StoreUnavailable(
                        "the list exceeded its time limit", kind="timeout"
                    ) from None
