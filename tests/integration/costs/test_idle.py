"""What a server asks its database while nothing happens: one statement for each look."""

import asyncio

import pytest

from jobledger_server.ledger.ledger import Ledger
from jobledger_server.ledger.reaper import Reaper
from jobledger_server.sql.store import SqlStore
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.tail import Tail
from jobledger_server.watch.window import Window
from tests.support.counted import counted


async def test_a_look_at_a_feed_that_has_not_moved_is_one_statement(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = await store.feed_head()
    hub = WatchHub(Window(head.seq), lambda: None, max_watches=1)
    tail = Tail(store, hub, asyncio.Event(), head)
    with counted(monkeypatch) as errands:
        for _ in range(5):
            assert not await tail._catch_up()
        assert errands.statements() == ["SELECT feed"] * 5


async def test_a_reaper_with_nothing_to_reap_asks_once_and_writes_nothing(
    store: SqlStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    reaper = Reaper(store, ledger)
    await reaper.reap()  # the connection is there
    with counted(monkeypatch) as errands:
        await reaper.reap()
        assert errands.statements() == ["SELECT jobs"]
