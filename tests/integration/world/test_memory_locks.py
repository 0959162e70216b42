"""The locks of the store in memory are as PostgreSQL's."""

import asyncio
from collections import Counter

import pytest

from jobledger_server.store import StoreUnavailable
from jobledger_world.memory.locks import Locks


async def test_a_transaction_that_was_terminated_while_it_waited_gets_no_lock() -> None:
    locks = Locks(Counter())
    first, second = locks.begin(None), locks.begin(None)
    await locks.acquire("one", first)
    waiting = asyncio.create_task(locks.acquire("one", second))
    await asyncio.sleep(0)
    locks.end(first)
    locks.end(second)  # it was given what it waited for, and does not know it yet
    await waiting
    with pytest.raises(StoreUnavailable):
        locks.take("two", second)
    assert locks.take("one", locks.begin(None))
    assert locks.take("two", locks.begin(None))
