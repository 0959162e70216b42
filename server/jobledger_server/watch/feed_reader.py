"""The feed as followers read it: from the window where they keep up, else from the table."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from jobledger_server.admission.admission import Turns
from jobledger_server.store import (
    Change,
    DeletionsForgotten,
    FeedHead,
    Store,
    StoreUnavailable,
)
from jobledger_server.watch import change_buffer
from jobledger_server.watch.change_buffer import Window

PAGE = 100
"""Changes in a page: few, because a page is one turn, and the client may not read it."""

PAGE_BYTES = 256 * 1024
"""Bytes that the jobs of a page take at most, or one job that takes more."""

READERS = 2
"""Feed watchers that read the table at once. The rest wait, and their callers have turns:
thousands that resume together must leave connections, and turns, to everybody else."""

FILL_PAGE = 1000
"""Changes read at once to fill the change buffer."""


class ForeignPlace(Exception):
    """The place lies ahead of the feed: it is of another database, or this one was restored."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the feed: nothing up to the place `through` is missing.

    `whole` says that nothing came after it when it was read, and `paged` that it is a page
    of the table. Up to the place `through` nothing may be known of jobs that were deleted by
    the place `as_of`, other than their deletions.
    """

    changes: Sequence[Change]
    through: int
    whole: bool
    as_of: int = 0
    paged: bool = False


async def filled_window(store: Store, head: FeedHead) -> Window:
    """Return a change buffer with the newest changes up to `head` or a little later.

    For those who were connected before a restart: they come back all at once, and
    none of them needs to ask the database. Read page by page, and no more than the
    buffer holds; where the database does not answer in time, it begins with less.
    """
    window = Window(head.seq)
    try:
        start = await store.newest_from(
            limit=change_buffer.MAX_CHANGES, max_bytes=change_buffer.MAX_BYTES
        )
        window.restart(start)
        while window.seq < head.seq:
            page = await store.changes_after(window.seq, limit=FILL_PAGE)
            for change in page.changes:
                window.add(change)
            if not page.changes:  # a hole: the tail finds it as well
                break
    except StoreUnavailable:
        pass  # the tail goes on where the buffer ends
    except DeletionsForgotten:  # by another server, just now
        window.restart(head.seq)
    return window


class Feed:
    """Reads the feed after any place."""

    def __init__(self, store: Store, window: Window) -> None:
        self._store = store
        self._window = window
        self._turns = Turns(READERS)

    @property
    def seq(self) -> int:
        """The newest place that this server knows of."""
        return self._window.seq

    @property
    def as_of(self) -> int:
        """Where the feed stood when the change at that place was read, if it was read."""
        return self._window.as_of

    async def after(
        self, seq: int, user_id: str | None, *, as_of: int = 0, patience: float | None = None
    ) -> Part:
        """Return what comes after the place: one owner's changes, or all.

        Of jobs that were deleted by the place `as_of` only the deletions, because others of
        their changes may have been passed over before. Awaits nothing where the window has
        it all. Raises DeletionsForgotten, ForeignPlace, StoreUnavailable; TimeoutError when
        its turn to read the table has not come after `patience` seconds.
        """
        window = self._window
        if seq < window.floor or as_of > max(seq, window.seq):
            async with self._turn(patience):
                page = await self._store.changes_after(
                    seq, limit=PAGE, max_bytes=PAGE_BYTES, user_id=user_id
                )
            head = page.head.seq
            if head < max(seq, as_of):
                raise ForeignPlace
            whole = page.through == head
            return Part(page.changes, page.through, whole, as_of=head, paged=True)
        changes = window.after(seq, user_id, as_of)
        count = _fitting(changes)
        if count < len(changes):
            last = changes[count - 1]
            return Part(changes[:count], last.seq, whole=False, as_of=last.as_of)
        return Part(changes, max(seq, window.seq), whole=True, as_of=window.as_of)

    async def active(
        self, seq: int, *, until: int, user_id: str | None, patience: float | None = None
    ) -> Part:
        """Return jobs that have not ended, by their latest changes after `seq` up to `until`.

        Raises StoreUnavailable, and TimeoutError as `after` does.
        """
        async with self._turn(patience):
            page = await self._store.active_jobs(
                seq, until=until, limit=PAGE, max_bytes=PAGE_BYTES, user_id=user_id
            )
        return Part(page.changes, page.through, whole=page.through == until)

    @asynccontextmanager
    async def _turn(self, patience: float | None) -> AsyncIterator[None]:
        """Read one page in the block, when it is the caller's turn. Raises TimeoutError."""
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(patience):
                await stack.enter_async_context(self._turns.turn())
            yield

    async def check(self, seq: int) -> None:
        """Raise ForeignPlace where the place lies ahead of the whole feed."""
        if seq > self._window.seq and seq > (await self._store.feed_head()).seq:
            raise ForeignPlace


def _fitting(changes: Sequence[Change]) -> int:
    """Return how many of the changes a page can take: at least one, if there is one."""
    room = PAGE_BYTES
    for count, change in enumerate(changes[:PAGE]):
        room -= change.job.content_bytes
        if room < 0:
            return max(1, count)
    return min(PAGE, len(changes))
