"""What a server asks its database while nothing happens: one statement a poll."""

import asyncio

import pytest

from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import FeedHead
from jobledger_server.tuning import Tuning
from jobledger_server.watch.change_buffer import ChangeBuffer
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.tail import Tail
from tests.support.counted import counting
from tests.support.gated_store import GatedStore
from tests.support.lookouts import lookout
from tests.support.tasks import running

POLLS = 5


async def test_a_poll_of_a_feed_that_has_not_moved_is_one_statement(
    store: SqlStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = Tuning(tail_idle_seconds=0.001)
    gated = GatedStore(store)
    polls = 0
    polled = asyncio.Event()

    async def poll() -> None:
        nonlocal polls
        polls += 1
        if polls > POLLS:
            polled.set()
            await asyncio.Event().wait()

    gated.before_head = poll
    with counting(database, monkeypatch) as counted:
        head = await store.feed_head()
        hub = WatchHub(ChangeBuffer(head.seq), lambda: None, max_watches=1)
        counted.reset()
        tail = Tail(gated, hub, asyncio.Event(), head, tuning=tuning)
        async with running(tail.run()), asyncio.timeout(20):
            await polled.wait()
        assert len(counted.statements) == POLLS, counted.statements


async def test_a_look_where_there_is_nothing_to_do_is_one_statement(
    store: SqlStore, database: Database, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiters = ClaimWaiters()
    looking = lookout(store, ledger, waiters)

    async def looked() -> list[str]:
        counted.reset()
        await looking.look()
        return [statement.split()[0] for statement in counted.statements]

    with counting(database, monkeypatch) as counted:
        await looked()  # the connection is open, and the pauses are known
        assert await looked() == ["SELECT"]
        with waiters.waiting(["render", "export"]), waiters.waiting(["render"]):
            assert await looked() == ["SELECT"]


async def test_a_server_that_is_idle_asks_nothing_but_what_its_lookout_asks(
    store: SqlStore, ledger: Ledger
) -> None:
    """Its tail hears from it that there is nothing to read."""
    tuning = Tuning(look_seconds=0.001)
    gated = GatedStore(store)
    polled: list[None] = []
    looked = asyncio.Event()

    async def poll() -> None:
        polled.append(None)

    gated.before_head = poll
    head = await store.feed_head()
    hub = WatchHub(ChangeBuffer(head.seq), lambda: None, max_watches=1)
    tail = Tail(gated, hub, asyncio.Event(), head)
    looks = 0

    def heard(head: FeedHead, asked_at: float) -> None:
        nonlocal looks
        tail.heard(head, asked_at)
        looks += 1
        if looks > POLLS:
            looked.set()

    looking = lookout(store, ledger, ClaimWaiters(), heard=heard, tuning=tuning)
    tasks = [asyncio.create_task(each.run()) for each in (tail, looking)]
    async with asyncio.timeout(20):
        await looked.wait()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert not polled
