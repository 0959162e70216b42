"""Reads the feed for its watches: from the change buffer if they keep up, else from the table."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from jobledger_server.admission.caller import Caller
from jobledger_server.admission.fair_queue import Turns
from jobledger_server.domain.job import JobId
from jobledger_server.store import (
    ActivePage,
    ActivePosition,
    Change,
    FeedCompacted,
    FeedHead,
    Store,
    StoreUnavailable,
)
from jobledger_server.tuning import Tuning
from jobledger_server.watch.change_buffer import ChangeBuffer

CHANGE_BYTES = 1024
"""Bytes that a change takes in a message besides its job's content, at most."""


class ForeignCursor(Exception):
    """The cursor is ahead of the feed: it is from another database, or this one was restored."""


@dataclass(frozen=True, slots=True)
class FeedSlice:
    """A part of the feed: every change up to `through` is in it or was in an earlier one.

    `whole`: nothing came after it when it was read.
    """

    changes: Sequence[Change]
    through: int
    whole: bool


async def filled_change_buffer(
    store: Store, head: FeedHead, tuning: Tuning = Tuning()
) -> ChangeBuffer:
    """Return a change buffer with the newest changes, up to `head` or a little later.

    After a restart all watches reconnect at once, and none of those that were connected
    before has to read the table. The buffer is filled page by page, within its bounds. If
    the database does not answer in time, it starts with fewer changes.
    """
    first = head.seq - tuning.buffered_changes
    buffer = ChangeBuffer(max(head.compacted_seq, first), tuning)
    try:
        while buffer.seq < head.seq:
            page = await store.changes_after(buffer.seq, limit=tuning.fill_page)
            for change in page.changes:
                buffer.add(change)
            if not page.changes:  # a hole in the feed: the tail finds it as well
                break
    except StoreUnavailable:
        pass  # the tail continues where the buffer ends
    except FeedCompacted:  # by another server, just now
        buffer.restart(head.seq)
    return buffer


class FeedReader:
    """Reads the feed after any cursor."""

    def __init__(self, store: Store, buffer: ChangeBuffer, tuning: Tuning = Tuning()) -> None:
        self._store = store
        self._buffer = buffer
        self._page = tuning.feed_page
        self._message_bytes = tuning.feed_message_bytes
        self.turns = Turns(tuning.feed_readers)
        # Thousands of watches that a commit wakes read the same, one after the other.
        self._last_read: tuple[object, FeedSlice] | None = None

    @property
    def seq(self) -> int:
        """The newest sequence number that the hub has handed to its watches."""
        return self._buffer.seq

    async def after(
        self,
        seq: int,
        user_id: str | None,
        *,
        caller: Caller,
        max_wait: float | None = None,
    ) -> FeedSlice:
        """Return the changes after `seq`. Does not await if the change buffer has them all.

        Args:
            seq: The reader's sequence number.
            user_id: The owner, or None for all owners.
            caller: Who reads: callers take turns at the table.
            max_wait: Seconds to wait at most for a turn to read the table.

        Raises:
            FeedCompacted: Deletions after `seq` are no longer known.
            ForeignCursor: `seq` is ahead of the feed.
            StoreUnavailable: The database does not answer.
            TimeoutError: The turn did not come in time.
        """
        buffer = self._buffer
        if seq < buffer.floor:
            async with self._turn(caller, max_wait):
                page = await self._store.changes_after(seq, limit=self._page, user_id=user_id)
            head = page.head.seq
            if head < seq:
                raise ForeignCursor
            return FeedSlice(page.changes, page.through, whole=page.through == head)
        key = buffer.version, seq, user_id
        if self._last_read is None or self._last_read[0] != key:
            self._last_read = key, self._read_buffer(seq, user_id)
        return self._last_read[1]

    def _read_buffer(self, seq: int, user_id: str | None) -> FeedSlice:
        buffer = self._buffer
        changes = buffer.after(seq, user_id)
        count = _fitting(changes, self._message_bytes)
        if count < len(changes):
            return FeedSlice(changes[:count], changes[count - 1].seq, whole=False)
        return FeedSlice(changes, max(seq, buffer.seq), whole=True)

    async def active(
        self,
        after: ActivePosition,
        *,
        until: int,
        user_id: str | None,
        ids: Collection[JobId] = (),
        caller: Caller,
        max_wait: float | None = None,
    ) -> ActivePage:
        """Return the active jobs after a position whose latest changes are not after `until`.

        Raises:
            StoreUnavailable: The database does not answer.
            TimeoutError: The turn did not come within `max_wait` seconds.
        """
        async with self._turn(caller, max_wait):
            return await self._store.active_jobs(
                after, until=until, limit=self._page, user_id=user_id, ids=ids
            )

    @asynccontextmanager
    async def _turn(self, caller: Caller, max_wait: float | None) -> AsyncIterator[None]:
        """Hold a turn to read one page during the block. Raises TimeoutError."""
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(max_wait):
                await stack.enter_async_context(self.turns.turn(caller))
            yield

    async def check(self, seq: int) -> None:
        """Raise ForeignCursor if `seq` is ahead of the feed."""
        if seq > self._buffer.seq and seq > (await self._store.feed_head()).seq:
            raise ForeignCursor


def _fitting(changes: Sequence[Change], room: int) -> int:
    """Return how many of the changes fit into a message: at least one, if there is one."""
    for count, change in enumerate(changes):
        room -= CHANGE_BYTES + change.content_bytes
        if room < 0:
            return max(1, count)
    return len(changes)
