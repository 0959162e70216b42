"""What this server knows of the pauses, limits and defaults that operators set, without asking.

A start or a creation is decided by it only if it is still true at the commit: the version of what
operators set is read while the feed is locked, and an outdated one is refreshed and tried again.
Whether a key is full is a guess, which spares a claim the jobs that it would pass over. If it is
wrong, the job is blocked for a moment; see maintenance/unblocker.py.
"""

from jobledger_server.domain.type_defaults import NO_DEFAULTS, TypeDefaults
from jobledger_server.store import Config, Store
from jobledger_server.tuning import Tuning


class KnownLimits:
    """The pauses and defaults, and the concurrency keys that were full when a start was decided."""

    def __init__(self, store: Store, tuning: Tuning = Tuning()) -> None:
        self._store = store
        self._max_full = tuning.full_keys
        self._config = Config(-1, frozenset(), {})
        self._full: dict[str, None] = {}  # the one seen last comes last

    @property
    def version(self) -> int:
        """The version of what operators set; -1 if it is not known yet."""
        return self._config.version

    def is_paused(self, job_type: str) -> bool:
        """Whether no job of this type may start."""
        return job_type in self._config.paused_types

    def defaults_of(self, job_type: str) -> TypeDefaults:
        """Return the defaults of this type."""
        return self._config.defaults.get(job_type, NO_DEFAULTS)

    async def refresh(self) -> bool:
        """Read what operators have set; return whether anything of it has changed."""
        version = self.version
        self._config = await self._store.config()
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
