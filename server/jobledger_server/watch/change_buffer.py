"""The window: the newest changes, kept for those who keep up with the feed.

Whoever reads it holds a place and nothing else, so a slow reader costs nothing: it
finds that its place has left the window, and reads the table until it is back. The
idea is that of etcd's synced and unsynced watchers.
"""

from collections import deque

from jobledger_server.store import Change

MAX_CHANGES = 8192
"""Changes kept at most."""

MAX_BYTES = 32 * 1024 * 1024
"""Bytes kept at most: what the jobs take, counted once for each change."""


class Window:
    """Every change after the place `floor` up to the place `seq`, as far as it was not conflated.

    A change that was read from the table stands for those of the same job that the
    table no longer has. `as_of` is where the feed stood when the change at `seq` was
    read, if it was read: up to there nothing is known of jobs that were deleted by then.
    """

    def __init__(self, seq: int, *, max_changes: int = MAX_CHANGES) -> None:
        self.floor = seq
        self.seq = seq
        self.as_of = 0
        self._max_changes = max_changes
        self._changes: deque[Change] = deque()
        self._sizes: deque[int] = deque()  # of the changes, in the same order
        self._owned: dict[str, deque[Change]] = {}
        self._bytes = 0

    def add(self, change: Change) -> None:
        """Take the next change."""
        job = change.job
        self._changes.append(change)
        owned = self._owned.get(job.user_id)
        if owned is None:
            owned = self._owned[job.user_id] = deque()
        owned.append(change)
        size = job.content_bytes
        self._sizes.append(size)
        self._bytes += size
        self.seq = change.seq
        self.as_of = change.as_of
        while len(self._changes) > self._max_changes or self._bytes > MAX_BYTES:
            self._drop_oldest()

    def after(self, seq: int, user_id: str | None = None, as_of: int = 0) -> list[Change]:
        """Return the changes after a place that is not before `floor`: one owner's, or all.

        Of jobs that were deleted by the place `as_of`, which is not after `seq` of the window,
        only the deletions.
        """
        kept = self._changes if user_id is None else self._owned.get(user_id, ())
        found = []
        for change in reversed(kept):
            if change.seq <= seq:
                break
            found.append(change)
        found.reverse()
        if seq < as_of:
            gone = {change.job.id for change in found if change.deleted and change.seq <= as_of}
            return [change for change in found if change.deleted or change.job.id not in gone]
        return found

    def restart(self, seq: int) -> None:
        """Forget everything, and go on from this place in what is another feed."""
        self._changes.clear()
        self._sizes.clear()
        self._owned.clear()
        self._bytes = 0
        self.floor = self.seq = seq
        self.as_of = 0

    def _drop_oldest(self) -> None:
        change = self._changes.popleft()
        job = change.job
        owned = self._owned[job.user_id]
        owned.popleft()
        if not owned:
            del self._owned[job.user_id]
        self._bytes -= self._sizes.popleft()
        self.floor = change.seq
