"""The feed as followers read it: from the window where they keep up, else from the table."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from jobledger_server.store import Change, DeletionsForgotten, FeedHead, Store
from jobledger_server.watch.window import MAX_CHANGES, Window

PAGE = 100
"""Changes read at once: few, because a job can be large and a reader can stall over them."""

PAGE_BYTES = 1024 * 1024
"""Bytes of the jobs' contents that a reader may stall over, and one job more."""

READERS = 2
"""Followers that read the table at once. The rest wait: thousands that come back together
must leave connections for everybody else."""


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
    """Return a window with the newest changes up to `head` or a little later.

    For those who were connected before a restart: they come back all at once, and
    none of them needs to ask the database.
    """
    start = max(head.forgotten, head.seq - MAX_CHANGES)
    try:
        page = await store.changes_after(start, limit=MAX_CHANGES)
    except DeletionsForgotten:  # by another server, just now
        return Window(head.seq)
    window = Window(start)
    for change in page.changes:
        window.add(change)
    return window


class Feed:
    """Reads the feed after any place."""

    def __init__(self, store: Store, window: Window) -> None:
        self._store = store
        self._window = window
        self._turn = asyncio.Semaphore(READERS)

    @property
    def seq(self) -> int:
        """The newest place that this server knows of."""
        return self._window.seq

    @property
    def as_of(self) -> int:
        """Where the feed stood when the change at that place was read, if it was read."""
        return self._window.as_of

    async def after(self, seq: int, user_id: str | None, *, as_of: int = 0) -> Part:
        """Return what comes after the place: one owner's changes, or all.

        Of jobs that were deleted by the place `as_of` only the deletions, because others of
        their changes may have been passed over before. Awaits nothing where the window has
        it all. Raises DeletionsForgotten, ForeignPlace, StoreUnavailable.
        """
        window = self._window
        if seq < window.floor or as_of > max(seq, window.seq):
            async with self._turn:
                page = await self._store.changes_after(seq, limit=PAGE, user_id=user_id)
            head = page.head.seq
            if head < max(seq, as_of):
                raise ForeignPlace
            whole = page.through == head
            return _cut(Part(page.changes, page.through, whole, as_of=head, paged=True))
        changes = window.after(seq, user_id, as_of)
        if len(changes) > PAGE:
            last = changes[PAGE - 1]
            return _cut(Part(changes[:PAGE], last.seq, whole=False, as_of=last.as_of))
        return _cut(Part(changes, max(seq, window.seq), whole=True, as_of=window.as_of))

    async def active(self, seq: int, *, until: int, user_id: str | None) -> Part:
        """Return jobs that have not ended, by their latest changes after `seq` up to `until`."""
        async with self._turn:
            changes = await self._store.active_jobs(seq, until=until, limit=PAGE, user_id=user_id)
        whole = len(changes) < PAGE
        return _cut(Part(changes, until if whole else changes[-1].seq, whole))

    async def check(self, seq: int) -> None:
        """Raise ForeignPlace where the place lies ahead of the whole feed."""
        if seq > self._window.seq and seq > (await self._store.feed_head()).seq:
            raise ForeignPlace


def _cut(part: Part) -> Part:
    """Return as much of the part as a reader may stall over; the rest is read again."""
    room = PAGE_BYTES
    for count, change in enumerate(part.changes[:-1], start=1):
        room -= change.job.content_bytes
        if room <= 0:
            cut = part.changes[:count]
            return replace(part, changes=cut, through=change.seq, whole=False, as_of=change.as_of)
    return part
