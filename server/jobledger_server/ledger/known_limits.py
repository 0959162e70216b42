"""What this server knows of the pauses and limits that operators set, without asking.

A start is decided by it only if it is still true when the start commits: the version of what
operators set is read while the feed is locked, and an outdated one is refreshed and tried again.
Whether a key is full is a guess, which spares a claim the jobs that it would pass over. If it is
wrong, the job is blocked for a moment; see maintenance/unblocker.py.
"""

from jobledger_server.store import Pauses, Store
from jobledger_server.tuning import Tuning


class KnownLimits:
    """The pauses, and the concurrency keys that were full when a start was last decided."""

    def __init__(self, store: Store, tuning: Tuning = Tuning()) -> None:
        self._store = store
        self._max_full = tuning.full_keys
        self._pauses = Pauses(-1, frozenset())
        self._full: dict[str, None] = {}  # the one seen last comes last

    @property
    def version(self) -> int:
        """The version of what operators set; -1 if it is not known yet."""
        return self._pauses.version

    def is_paused(self, job_type: str) -> bool:
        """Whether no job of this type may start."""
        return job_type in self._pauses.job_types

    async def refresh(self) -> bool:
        """Read the pauses; return whether anything that operators set has changed."""
        version = self.version
        self._pauses = await self._store.pauses()
        return self.version != version

    def is_full(self, key: str) -> bool:
        """Whether the key was full when this server saw it last."""
        return key in self._full

    def saw(self, key: str, *, full: bool) -> None:
        """Record whether a key is full."""
        self._full.pop(key, None)
        if full:
            self._full[key] = None
            if len(self._full) > self._max_full:
                del self._full[next(iter(self._full))]
