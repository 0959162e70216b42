"""Admission of lists: a few at a time, fairly queued, each with a time limit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jobledger_server.admission.admission import Admission
from jobledger_server.admission.caller import Caller
from jobledger_server.admission.fair_queue import Turns
from jobledger_server.domain.limits import LIST_SECONDS
from jobledger_server.store import StoreUnavailable

CONCURRENT_LISTS = 2
"""Lists that read the database at once."""

MAX_LISTS = 1000
"""Lists running or waiting for their turn, of all callers."""

MAX_LISTS_EACH = 100
"""The same for one caller."""


class Lists:
    """Admits lists."""

    def __init__(self) -> None:
        self.admission = Admission("lists", total=MAX_LISTS, each=MAX_LISTS_EACH)
        self.turns = Turns(CONCURRENT_LISTS)

    @asynccontextmanager
    async def turn(self, caller: Caller) -> AsyncIterator[None]:
        """Wait for the caller's turn, and hold it during the block.

        Raises:
            LimitExceeded: Too many lists are running or waiting.
            StoreUnavailable: The block took longer than LIST_SECONDS.
        """
        with self.admission.admit(caller):
            async with self.turns.turn(caller):
                try:
                    async with asyncio.timeout(LIST_SECONDS):
                        yield
                except TimeoutError:
                    raise StoreUnavailable(
                        "the list exceeded its time limit", kind="timeout"
                    ) from None
