"""Reads of the table when many watches resume at once: one page a turn, callers in turn."""

import asyncio
from typing import Any

import pytest

from jobledger_server.admission.caller import SERVICE, Caller
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import FeedPage
from jobledger_server.tuning import Tuning
from jobledger_server.watch.change_buffer import ChangeBuffer
from jobledger_server.watch.feed_reader import FeedReader
from jobledger_server.watch.feed_watch import Cursor, FeedWatch, Selection
from tests.support.gated_store import Gate
from tests.support.store_writer import append, creation

JOBS = 50
MAX_WAIT = 30.0
TUNING = Tuning(feed_page=10)
SELECTIVE = Selection(labels={"no": "such"})


class CountingStore:
    """The real store; counts the pages that are read, and can hold them up."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.pages = 0
        self.gate: Gate | None = None

    async def changes_after(self, *args: Any, **options: Any) -> FeedPage:
        self.pages += 1
        if self.gate is not None:
            await self.gate()
        return await self._store.changes_after(*args, **options)


@pytest.fixture
async def counting(store: SqlStore) -> CountingStore:
    await append(store, *(creation() for _ in range(JOBS)))
    return CountingStore(store)


async def synced(feed: FeedReader, selection: Selection, caller: Caller) -> None:
    watch = FeedWatch(feed, selection, Cursor(0), caller)
    while (update := await watch.next_update(MAX_WAIT)) is None or not update.synced:
        pass


@pytest.mark.parametrize("good", [Caller("there", "good"), Caller("here", "good")])
async def test_many_resuming_watches_of_one_caller_do_not_delay_others(
    counting: CountingStore, good: Caller
) -> None:
    feed = FeedReader(counting, ChangeBuffer(JOBS), TUNING)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(20):
            tasks.create_task(synced(feed, SELECTIVE, Caller("here", "greedy")))
        while counting.pages < TUNING.feed_readers:
            await asyncio.sleep(0.001)
        await tasks.create_task(synced(feed, Selection(), good))
        # Five of its own, and a few of the others for each; first come, first served it was 100.
        assert counting.pages <= 40
    assert counting.pages == 21 * JOBS / 10


async def test_a_watch_that_waits_for_its_turn_sends_heartbeats_and_misses_nothing(
    counting: CountingStore,
) -> None:
    counting.gate = gate = Gate()
    feed = FeedReader(counting, ChangeBuffer(JOBS), TUNING)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(TUNING.feed_readers):
            tasks.create_task(synced(feed, Selection(), Caller("here")))
        while counting.pages < TUNING.feed_readers:
            await asyncio.sleep(0.001)
        for cursor in (Cursor(0), Cursor(0, JOBS)):
            waiting = FeedWatch(feed, Selection(), cursor, SERVICE)
            for _ in range(3):
                assert await waiting.next_update(0.01) is None
                assert waiting.cursor == cursor
        gate.open()
    watch, seen = FeedWatch(feed, Selection(), Cursor(0), SERVICE), 0
    while seen < JOBS:
        update = await watch.next_update(0.0)
        seen += len(update.changes) if update else 0


async def test_a_watch_without_matches_reports_its_cursor_while_it_reads(
    counting: CountingStore,
) -> None:
    watch = FeedWatch(
        FeedReader(counting, ChangeBuffer(JOBS), TUNING), SELECTIVE, Cursor(0), SERVICE
    )
    cursors = []
    while (update := await watch.next_update(0.0)) is None:
        cursors.append(watch.cursor.seq)
    assert cursors == list(range(10, JOBS, 10))
    assert update.synced
