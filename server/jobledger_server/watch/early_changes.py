"""Early changes: commits of this process that came before an earlier one of another server.

The earlier one is read from the table. What is kept here need not be.
"""

from collections.abc import Sequence

from jobledger_server.store import Change
from jobledger_server.tuning import Tuning


class EarlyChanges:
    """Changes by their sequence numbers. What does not fit is not kept: the table has it."""

    def __init__(self, tuning: Tuning = Tuning()) -> None:
        self._max_changes = tuning.early_changes
        self._max_bytes = tuning.early_bytes
        self._by_seq: dict[int, Change] = {}
        self._bytes = 0

    @property
    def first(self) -> int | None:
        """The least sequence number, or None if nothing is kept."""
        return min(self._by_seq, default=None)

    @property
    def last(self) -> int:
        """The greatest sequence number, or 0 if nothing is kept."""
        return max(self._by_seq, default=0)

    def add(self, changes: Sequence[Change]) -> None:
        """Keep the changes of a commit."""
        if len(self._by_seq) < self._max_changes and self._bytes < self._max_bytes:
            for change in changes:
                self._by_seq[change.seq] = change
                self._bytes += change.memory_bytes

    def take(self, seq: int) -> list[Change]:
        """Remove and return the changes that follow `seq`, up to the next gap."""
        taken = []
        while (change := self._by_seq.pop(seq + 1, None)) is not None:
            self._bytes -= change.memory_bytes
            taken.append(change)
            seq += 1
        return taken

    def drop(self, seq: int) -> None:
        """Drop the changes up to and including `seq`: they were read from the table."""
        for early in [early for early in self._by_seq if early <= seq]:
            self._bytes -= self._by_seq.pop(early).memory_bytes

    def clear(self) -> None:
        """Drop everything."""
        self._by_seq.clear()
        self._bytes = 0
