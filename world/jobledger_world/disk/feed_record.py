"""What the lock file of an SQLite database holds: who has it, and the feed's last known head."""

from collections.abc import Iterator
from contextlib import contextmanager

from jobledger_server.embedded import DatabaseInUse
from jobledger_server.store import FeedHead
from jobledger_world.nodes import Node


class FeedRecord:
    """Stands in for `file_lock.Lock`."""

    def __init__(self, before: FeedHead | None) -> None:
        self.last = before or FeedHead("-", 0)
        self._before = before

    def continues(self, head: FeedHead) -> bool:
        """Return whether `head` is of the recorded feed, and not behind the recorded head."""
        before = self._before
        return before is not None and before.epoch == head.epoch and before.seq <= head.seq

    def record(self, head: FeedHead) -> None:
        """Record the feed's head, for the next server."""
        self.last = head


class LockFile:
    """Lets one server at a time have the database."""

    def __init__(self) -> None:
        self._record: FeedRecord | None = None
        self._owner: Node | None = None

    @contextmanager
    def locked(self, node: Node) -> Iterator[FeedRecord]:
        """Lock it during the block. Raises DatabaseInUse."""
        if self._owner is not None:
            raise DatabaseInUse(f"{self._owner.name} has the database")
        self._owner = node
        self._record = FeedRecord(None if self._record is None else self._record.last)
        try:
            yield self._record
        finally:
            self.release(node)

    def release(self, node: Node) -> None:
        """Unlock it, if this node has it."""
        if self._owner is node:
            self._owner = None
