"""The store in memory, without a world around it."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from jobledger_server.domain.job import Instant
from jobledger_server.tuning import Tuning
from jobledger_world.memory.link import Database
from jobledger_world.memory.locks import Locks
from jobledger_world.memory.store import MemoryStore
from jobledger_world.memory.tables import Tables
from tests.support.seed import SEED

Result = TypeVar("Result")


class DirectLink:
    """A way without a fault, on which nothing takes any time; see `link.Link`."""

    node = None

    async def request(self) -> float:
        await asyncio.sleep(0)
        return 0.0

    async def answer(self, seconds: float) -> None: ...

    async def commit(self, apply: Callable[[], Result]) -> Result:
        await asyncio.sleep(0)
        return apply()


def memory_store(tuning: Tuning) -> MemoryStore:
    """Return an empty one, of this machine's time, on which nothing fails."""
    tables = Tables(random.Random(SEED))
    locks = Locks(Counter())
    database = Database(tables, locks, lambda: Instant(time.time_ns() // 1000), DirectLink())
    return MemoryStore(database, tuning)
