"""What a server asks its database while nothing happens: one statement a poll."""

import asyncio

import pytest

from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.maintenance.promoter import Promoter
from jobledger_server.maintenance.reaper import Reaper
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.tuning import Tuning
from jobledger_server.watch.change_buffer import ChangeBuffer
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.tail import Tail
from tests.support.counted import counting
from tests.support.gated_store import GatedStore

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
        tail = asyncio.create_task(Tail(gated, hub, asyncio.Event(), head, tuning=tuning).run())
        async with asyncio.timeout(20):
            await polled.wait()
        tail.cancel()
        await asyncio.wait([tail])
        assert len(counted.statements) == POLLS, counted.statements


async def test_a_reaper_with_nothing_to_reap_queries_once_and_writes_nothing(
    store: SqlStore, database: Database, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    reaper = Reaper(store, ledger)
    with counting(database, monkeypatch) as counted:
        await reaper.reap()  # the connection is open
        counted.reset()
        await reaper.reap()
        (statement,) = counted.statements
        assert statement.lstrip().startswith("SELECT")


async def test_a_promoter_with_nothing_to_do_queries_once(
    store: SqlStore, database: Database, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiters = ClaimWaiters()
    promoter = Promoter(store, ledger, waiters)

    async def polled() -> list[str]:
        counted.reset()
        await promoter.step()
        return [statement.split()[0] for statement in counted.statements]

    with counting(database, monkeypatch) as counted:
        await polled()  # the connection is open, and the pauses are known
        assert await polled() == ["SELECT"]
        with waiters.waiting(["render", "export"]), waiters.waiting(["render"]):
            assert await polled() == ["SELECT"]
