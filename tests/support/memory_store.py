"""The store in memory, without a world around it."""

import random
import time
from collections import Counter

from jobledger.testing.world.memory.link import Database, DirectLink
from jobledger.testing.world.memory.locks import Locks
from jobledger.testing.world.memory.store import MemoryStore
from jobledger.testing.world.memory.tables import Tables
from jobledger_server.domain.job import Instant
from jobledger_server.tuning import Tuning
from tests.support.seed import SEED


def memory_store(tuning: Tuning) -> MemoryStore:
    """Return an empty one, of this machine's time, on which nothing fails."""
    tables = Tables(random.Random(SEED))
    locks = Locks(Counter())
    database = Database(tables, locks, lambda: Instant(time.time_ns() // 1000), DirectLink())
    return MemoryStore(database, tuning)
