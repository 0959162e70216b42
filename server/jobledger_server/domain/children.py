"""What a group knows of the jobs that belong to it, its children."""

from msgspec import Struct


class Children(Struct, frozen=True, array_like=True):
    """How many children a group has in each state, and what else decides when it ends.

    Attributes:
        level: 1 if it belongs to no group, 2 if it belongs to such a one, and so on.
        fail_fast: Whether the first child that becomes FAILED cancels the others.
        sealed: Whether no child is added any more.
        cancelling: Whether some of them are to be cancelled yet; see maintenance/groups.py.
    """

    queued: int = 0
    processing: int = 0
    completed: int = 0
    partial: int = 0
    failed: int = 0
    level: int = 1
    fail_fast: bool = False
    sealed: bool = False
    cancelling: bool = False

    @property
    def open(self) -> int:
        """How many have not ended."""
        return self.queued + self.processing

    @property
    def ended(self) -> int:
        """How many have ended."""
        return self.completed + self.partial + self.failed

    @property
    def total(self) -> int:
        """How many there are."""
        return self.open + self.ended
