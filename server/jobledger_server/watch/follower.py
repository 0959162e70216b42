"""A watcher of many jobs: a place in the feed, and nothing else.

However slow it is, it holds no queue and nobody cuts it off; it reads on from its
own place when it is ready.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobledger_server.domain.model import Job
from jobledger_server.store import Change
from jobledger_server.watch.bell import Bell
from jobledger_server.watch.feed import Feed
from jobledger_server.watch.subscription import Draining


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
    feed stood there, and of those the ones up to `seq`.
    """

    seq: int
    listing_until: int | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What a follower is told next; then it stands at `place`.

    `synced` says, once, that it is told everything there was when it was read.
    """

    changes: Sequence[Change]
    place: Place
    synced: bool

    def place_of(self, change: Change) -> Place:
        """Return where the follower stands after one of the changes."""
        return Place(change.seq, self.place.listing_until)


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
        self._seq = place.seq
        self._listing_until = place.listing_until
        self._synced = False
        self._asleep = False
        self._draining = False
        self._bell = Bell()

    @property
    def place(self) -> Place:
        """Where it stands."""
        seq = max(self._seq, self._feed.seq) if self._asleep else self._seq
        return Place(seq, self._listing_until)

    def offer(self, change: Change) -> bool:
        """Take note of a change; return whether the follower is to be woken for it."""
        if not self._asleep or change.seq <= self._seq or not self.selection.has(change.job):
            return False
        self._seq = change.seq - 1
        self._asleep = False
        return True

    def wake(self) -> None:
        """Wake the watcher: there may be news."""
        self._bell.ring()

    def end(self) -> None:
        """Let go of everything: the watcher is gone."""
        self._bell.silence()

    def drain(self) -> None:
        """Tell the watcher that this server is going away."""
        self._draining = True
        self.wake()

    async def news(self, patience: float) -> Told | None:
        """Return what is new, as soon as anything is; None if nothing was for `patience` seconds.

        Raises Draining when the server goes away, DeletionsForgotten,
        ForeignPlace, StoreUnavailable.
        """
        while not self._draining:
            self._seq = self.place.seq
            told = await (self._read() if self._listing_until is None else self._list())
            if told.changes or told.synced:
                return told
            if self._asleep and not await self._bell.wait(patience):
                return None
        raise Draining

    async def _list(self) -> Told:
        until = self._listing_until or 0
        part = await self._feed.active(self._seq, until=until, user_id=self.selection.user_id)
        self._seq = part.through
        told = Told(self._matching(part.changes), Place(self._seq, until), synced=False)
        if part.whole:
            self._listing_until = None
        return told

    async def _read(self) -> Told:
        part = await self._feed.after(self._seq, self.selection.user_id)
        self._seq = part.through
        matching = self._matching(part.changes)
        synced = part.whole and not self._synced
        self._synced = self._synced or synced
        # Nothing was awaited since the window was read, so nothing has slipped through. What was
        # read from the table says nothing of what is in the window by now.
        self._asleep = part.whole and self._feed.seq <= self._seq
        return Told(matching, Place(self._seq), synced)

    def _matching(self, changes: Sequence[Change]) -> list[Change]:
        return [change for change in changes if self.selection.has(change.job)]
