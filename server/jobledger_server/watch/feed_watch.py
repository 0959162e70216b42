"""A watch of many jobs: a cursor in the feed instead of a queue.

While it sends, it holds one message. However slow its client is, it is never cut off: it
reads on from its own cursor when the client is ready.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jobledger_server.admission.caller import Caller
from jobledger_server.admission.endings import Ending
from jobledger_server.domain.job import Job, JobId
from jobledger_server.store import ActivePosition, Change
from jobledger_server.watch.feed_reader import FeedReader
from jobledger_server.watch.wake_up import WakeUp


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which jobs, by properties that never change. An empty filter matches every job."""

    user_id: str | None = None
    job_types: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)
    job_ids: frozenset[JobId] = frozenset()
    group_id: JobId | None = None

    @property
    def is_owner_only(self) -> bool:
        """Whether every job of the owner matches."""
        filters = self.job_types or self.labels or self.job_ids or self.group_id
        return not filters

    def matches(self, job: Job) -> bool:
        return (
            (self.user_id is None or job.user_id == self.user_id)
            and (not self.job_types or job.job_type in self.job_types)
            and (not self.labels or self.labels.items() <= job.labels.items())
            and (not self.job_ids or job.id in self.job_ids)
            and self.group_id in (None, job.group_id)
        )

    def key(self) -> tuple[object, ...]:
        """Return a key whose repr is the same for equal selections, and only for those."""
        return (
            self.user_id,
            sorted(self.job_types),
            sorted(self.labels.items()),
            sorted(self.job_ids),
            self.group_id,
        )


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a watch has got: its client was sent everything up to `seq`.

    With `listed` the watch still lists the jobs that were active when the feed was at `seq`,
    and has listed those up to this position.
    """

    seq: int
    listed: ActivePosition | None = None


@dataclass(frozen=True, slots=True)
class FeedUpdate:
    """Changes to send, in one message.

    They lead from the cursor `after` to the watch's present one. `synced` is true in one
    update of a watch: with it, everything that existed when it was read has been sent. Up to
    that update the watch is `catching_up`.
    """

    changes: Sequence[Change]
    after: Cursor
    synced: bool = False
    catching_up: bool = True


class FeedWatch:
    """A watch of many jobs.

    `_idle` means that the client was sent everything up to the cursor, and that no matching
    change has come since. The hub then wakes the watch at the first matching change. Until
    then `cursor` follows the feed, however rarely a change matches.
    """

    def __init__(
        self, reader: FeedReader, selection: Selection, cursor: Cursor, caller: Caller
    ) -> None:
        self.selection = selection
        self.caller = caller
        self.wake_scheduled = False  # set and cleared by the hub
        self._reader = reader
        self._cursor = cursor
        self._synced = False
        self._idle = False
        self._ending: Ending | None = None
        self._wake_up = WakeUp()

    @property
    def cursor(self) -> Cursor:
        """How far it has got."""
        if self._idle and self._cursor.seq < self._reader.seq:
            return Cursor(self._reader.seq)
        return self._cursor

    def offer(self, changes: Sequence[Change]) -> bool:
        """Take note of a commit's changes; return whether the watch is to be woken for them."""
        if not self._idle:
            return False
        for change in changes:
            if change.seq > self._cursor.seq and self.selection.matches(change.job):
                self._cursor = Cursor(change.seq - 1)
                self._idle = False
                return True
        return False

    def wake(self) -> None:
        """Wake the watch: there may be an update."""
        self._wake_up.set()

    def close(self) -> None:
        """Release the wake-up's timer: the client is gone."""
        self._wake_up.close()

    def end(self, ending: Ending) -> None:
        """End the watch at its present cursor, whatever the hub publishes from here on."""
        self._cursor = self.cursor
        self._idle = False
        self._ending = ending
        self.wake()

    async def next_update(self, max_wait: float) -> FeedUpdate | None:
        """Return the next update as soon as there is one, or None after `max_wait` seconds.

        It returns None too if what was read did not match, or if no turn to read the table came
        in time. The cursor has then moved as far as was read.

        Raises:
            Ending: The stream has to end.
            FeedCompacted: Deletions after the cursor are no longer known.
            ForeignCursor: The cursor is ahead of the feed.
            StoreUnavailable: The database does not answer.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + max_wait
        left = max_wait
        while self._ending is None:
            self._cursor = self.cursor
            listed = self._cursor.listed
            try:
                update = await (self._read(left) if listed is None else self._list(listed, left))
            except TimeoutError:
                return None
            if update.changes or update.synced:
                return update
            left = max(0.0, end - loop.time())
            go_on = await self._wake_up.wait(left) if self._idle else left > 0
            if not go_on:
                return None
        raise self._ending

    async def _list(self, listed: ActivePosition, max_wait: float) -> FeedUpdate:
        after = self._cursor
        page = await self._reader.active(
            listed,
            until=after.seq,
            user_id=self.selection.user_id,
            ids=self.selection.job_ids,
            caller=self.caller,
            max_wait=max_wait,
        )
        self._cursor = Cursor(after.seq, page.next_after)
        return FeedUpdate(self._matching(page.changes), after)

    async def _read(self, max_wait: float) -> FeedUpdate:
        after = self._cursor
        part = await self._reader.after(
            after.seq,
            self.selection.user_id,
            caller=self.caller,
            max_wait=max_wait,
        )
        self._cursor = Cursor(part.through)
        matching = self._matching(part.changes)
        catching_up = not self._synced
        self._synced = self._synced or part.whole
        # Safe because nothing was awaited since the change buffer was read. A page of the table
        # says nothing about what is in the buffer by now, hence the comparison.
        self._idle = part.whole and self._reader.seq <= part.through
        synced = catching_up and part.whole
        return FeedUpdate(matching, after, synced=synced, catching_up=catching_up)

    def _matching(self, changes: Sequence[Change]) -> Sequence[Change]:
        """Return which of the owner's changes match."""
        selection = self.selection
        if selection.is_owner_only:
            return changes
        return [change for change in changes if selection.matches(change.job)]
