"""The change buffer: the newest changes in memory, for watches that keep up with the feed.

A reader holds a cursor and nothing else, so a slow reader costs nothing: once its
cursor is older than the buffer, it reads the table until it has caught up. This is the
idea of etcd's synced and unsynced watchers.
"""

from collections import deque

from jobledger_server.store import Change
from jobledger_server.tuning import Tuning


class ChangeBuffer:
    """The changes after sequence number `floor`, up to and including `seq`.

    A change read from the table replaces earlier changes of the same job that the table
    no longer holds. `version` is another number after each modification.
    """

    def __init__(self, seq: int, tuning: Tuning = Tuning()) -> None:
        self.floor = seq
        self.seq = seq
        self.version = 0
        self._max_changes = tuning.buffered_changes
        self._max_bytes = tuning.buffered_bytes
        self._changes: deque[Change] = deque()
        self._by_owner: dict[str, deque[Change]] = {}
        self._bytes = 0

    def add(self, change: Change) -> None:
        """Append the next change."""
        job = change.job
        self.version += 1
        self._changes.append(change)
        owned = self._by_owner.get(job.user_id)
        if owned is None:
            owned = self._by_owner[job.user_id] = deque()
        owned.append(change)
        self._bytes += change.memory_bytes
        self.seq = change.seq
        while len(self._changes) > self._max_changes or self._bytes > self._max_bytes:
            self._drop_oldest()

    def advance(self, seq: int) -> None:
        """Take note that no change up to `seq` is missing."""
        self.version += 1
        self.seq = seq

    def after(self, seq: int, user_id: str | None = None) -> list[Change]:
        """Return the changes after `seq`, of one owner or of all.

        Args:
            seq: A sequence number, not less than `floor`.
            user_id: The owner, or None for all owners.
        """
        kept = self._changes if user_id is None else self._by_owner.get(user_id, ())
        found = []
        for change in reversed(kept):
            if change.seq <= seq:
                break
            found.append(change)
        found.reverse()
        return found

    def restart(self, seq: int) -> None:
        """Drop everything and continue after `seq`, in a feed that may be another one."""
        self.version += 1
        self._changes.clear()
        self._by_owner.clear()
        self._bytes = 0
        self.floor = self.seq = seq

    def _drop_oldest(self) -> None:
        change = self._changes.popleft()
        job = change.job
        owned = self._by_owner[job.user_id]
        owned.popleft()
        if not owned:
            del self._by_owner[job.user_id]
        self._bytes -= change.memory_bytes
        self.floor = change.seq
