"""What a server asks its database while nothing happens: one statement for each look."""

import asyncio

import pytest

from costs.counted import counted
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.ledger.reaper import Reaper
from jobledger_server.sql.store import SqlStore
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.tail import Tail
from jobledger_server.watch.window import Window


def asked(errands: list[str]) -> list[str]:
    """Leave out how a cursor is made, read and closed, which SQLite's driver is told apart."""
    return [errand for errand in errands if errand.startswith(("SELECT", "UPDATE", "INSERT"))]


async def test_a_look_at_a_feed_that_has_not_moved_is_one_statement(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = await store.feed_head()
    hub = WatchHub(Window(head.seq), lambda: None, max_watches=1)
    tail = Tail(store, hub, asyncio.Event(), head)
    await tail._catch_up()
    seen = 0
    read = store.feed_head

    async def noted() -> object:
        nonlocal seen
        seen += 1
        return await read()

    monkeypatch.setattr(store, "feed_head", noted)
    monkeypatch.setattr(store, "changes_after", None)
    for _ in range(5):
        assert not await tail._catch_up()
    assert seen == 5


async def test_a_reaper_with_nothing_to_reap_asks_once_and_writes_nothing(
    store: SqlStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    reaper = Reaper(store, ledger)
    with counted(monkeypatch) as errands:
        before = await store.feed_head()
        errands.taken()
        await reaper.reap()
        written = [e for e in errands.taken() if e.startswith(("BEGIN", "UPDATE", "INSERT"))]
        assert written == []
        assert await store.feed_head() == before
