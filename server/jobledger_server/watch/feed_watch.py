"""A watcher of many jobs: a place in the feed, and nothing else.

However slow it is, it holds no queue and nobody cuts it off; it reads on from its
own place when it is ready.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobledger_server.domain.job import Job
from jobledger_server.store import Change
from jobledger_server.watch.feed_reader import Feed
from jobledger_server.watch.job_watch import Draining
from jobledger_server.watch.wake_up import Bell


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which jobs, by what never changes of them; an empty filter lets all through."""

    user_id: str | None = None
    job_types: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)

    def has(self, job: Job) -> bool:
        return (
            (self.user_id is None or job.user_id == self.user_id)
            and (not self.job_types or job.job_type in self.job_types)
            and (not self.labels or self.labels.items() <= job.labels.items())
        )

    def key(self) -> tuple[object, ...]:
        """Return a key whose repr is the same for, and only for, the same selection."""
        return self.user_id, sorted(self.job_types), sorted(self.labels.items())


@dataclass(frozen=True, slots=True)
class Place:
    """Where a follower stands: it has been told everything up to `seq`.

    With `listing_until` it is still being told the jobs that had not ended when the
    feed stood there, and of those the ones up to `seq`. An `as_of` greater than `seq`
    says that jobs which were deleted by that place may have been passed over: of those
    it is told the deletions, and nothing else that came before.
    """

    seq: int
    listing_until: int | None = None
    as_of: int = 0


def _place(seq: int, listing_until: int | None, as_of: int) -> Place:
    return Place(seq, listing_until, as_of if as_of > seq else 0)


@dataclass(frozen=True, slots=True)
class Told:
    """What a follower is told next, to be taken one by one; then it stands at `place`.

    `synced` says, once, that it is told everything there was when it was read. `as_of` is
    that of the place where it stood before.
    """

    changes: deque[Change]
    place: Place
    synced: bool
    as_of: int = 0

    def place_of(self, change: Change) -> Place:
        """Return where the follower stands after one of the changes."""
        as_of = max(self.as_of, change.as_of)
        return _place(change.seq, self.place.listing_until, as_of)


class Follower:
    """One watcher of many jobs.

    `asleep` says that it was told everything up to `seq`, and of no matching
    change since: the hub then wakes it with the first one, and by this its place
    keeps up with the feed however rarely there is something for it.
    """

    def __init__(self, feed: Feed, selection: Selection, place: Place) -> None:
        self.selection = selection
        self.waking = False  # the hub's note that its turn to be woken is coming
        self._feed = feed
        self._place = place
        self._as_of = place.as_of  # of what it was told by the table, or by another server
        self._synced = False
        self._asleep = False
        self._draining = False
        self._bell = Bell()

    @property
    def place(self) -> Place:
        """Where it stands."""
        if self._asleep and self._place.seq < self._feed.seq:
            return self._place_at(self._feed.seq, self._feed.as_of)
        return self._place

    def offer(self, change: Change) -> bool:
        """Take note of a change; return whether the follower is to be woken for it."""
        if not self._asleep or change.seq <= self._place.seq or not self.selection.has(change.job):
            return False
        self._place = self._place_at(change.seq - 1, change.as_of)
        self._asleep = False
        return True

    def wake(self) -> None:
        """Wake the watcher: there may be news."""
        self._bell.ring()

    def end(self) -> None:
        """Let go of everything: the watcher is gone."""
        self._bell.silence()

    def drain(self) -> None:
        """End the watch at its own cursor: what the hub does from here on it does not follow."""
        self._place = self.place
        self._asleep = False
        self._draining = True
        self.wake()

    async def news(self, patience: float) -> Told | None:
        """Return what is new, as soon as anything is; None if nothing was for `patience` seconds.

        None too where nothing was found for so long, or the turn to read did not come: the
        cursor has moved on as far as was read, and the next call goes on there.

        Raises Draining when the server goes away, DeletionsForgotten,
        ForeignPlace, StoreUnavailable.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + patience
        left = patience
        while not self._draining:
            self._place = self.place
            until = self._place.listing_until
            try:
                told = await (self._read(left) if until is None else self._list(until, left))
            except TimeoutError:
                return None
            if told.changes or told.synced:
                return told
            left = max(0.0, end - loop.time())
            if not (await self._bell.wait(left) if self._asleep else left):
                return None
        raise Draining

    async def _list(self, until: int, patience: float) -> Told:
        user_id = self.selection.user_id
        part = await self._feed.active(
            self._place.seq, until=until, user_id=user_id, patience=patience
        )
        place = Place(part.through, until)
        self._place = Place(part.through) if part.whole else place
        return Told(self._matching(part.changes), place, synced=False)

    async def _read(self, patience: float) -> Told:
        as_of = self._as_of
        part = await self._feed.after(
            self._place.seq, self.selection.user_id, as_of=as_of, patience=patience
        )
        self._place = self._place_at(part.through, part.as_of)
        if part.paged:
            self._as_of = part.as_of
        matching = self._matching(part.changes)
        synced = part.whole and not self._synced
        self._synced = self._synced or synced
        # Nothing was awaited since the window was read, so nothing has slipped through. What was
        # read from the table says nothing of what is in the window by now.
        self._asleep = part.whole and self._feed.seq <= part.through
        return Told(matching, self._place, synced, as_of)

    def _place_at(self, seq: int, as_of: int) -> Place:
        return _place(seq, None, max(self._as_of, as_of))

    def _matching(self, changes: Sequence[Change]) -> deque[Change]:
        return deque(change for change in changes if self.selection.has(change.job))
