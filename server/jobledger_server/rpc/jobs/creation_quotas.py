"""Quotas for creations: how many jobs a caller creates, and how many it leaves unfinished."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from jobledger_server.admission.caller import Caller
from jobledger_server.admission.rates import MAX_REMEMBERED, RateLimit
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.store import Store
from jobledger_server.tuning import Tuning


@dataclass(slots=True)
class _Unfinished:
    """The unfinished jobs of a user: those counted, and those that are being created."""

    counted: int = 0
    created: int = 0
    counted_at: float = float("-inf")
    creating: int = 0
    counting: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def total(self) -> int:
        return self.counted + self.creating


class CreationQuotas:
    """Counts the creations of callers that have quotas for them.

    Jobs that other servers create are counted up to `count_seconds` later, so several servers
    together may exceed the quota by what they create in that time.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float] | None = None,
        *,
        count_seconds: float = Tuning().count_seconds,
    ) -> None:
        self.rate = RateLimit("jobs_per_second", lambda quotas: quotas.jobs_per_second)
        self.limit = "unfinished_jobs"
        self.refused = {"caller": 0}
        """How often a creation was refused because of the caller's unfinished jobs."""
        self._store = store
        self._clock = clock or asyncio.get_running_loop().time
        self._count_seconds = count_seconds
        self._users: OrderedDict[str, _Unfinished] = OrderedDict()

    def check(self, caller: Caller) -> None:
        """Raise LimitExceeded if the caller can create no job now: its request is not parsed."""
        self.rate.take(caller, 0)

    @asynccontextmanager
    async def creating(self, caller: Caller, counts: Mapping[str, int]) -> AsyncIterator[None]:
        """Create so many jobs of each user in the block. Raises LimitExceeded."""
        most = caller.quotas.unfinished_jobs
        users: list[tuple[_Unfinished, int]] = []
        if most is not None:
            users = [(await self._unfinished(user, most), count) for user, count in counts.items()]
            if any(unfinished.total + count > most for unfinished, count in users):
                self.refused["caller"] += 1
                raise LimitExceeded(self.limit, most, scope="caller", caller=caller.identity)
        self.rate.take(caller, sum(counts.values()))  # once: what is refused is not counted
        for unfinished, count in users:
            unfinished.creating += count
        refused = False
        try:
            yield
        except Exception:
            refused = True
            raise
        finally:
            # What a caller has cancelled is created anyway.
            for unfinished, count in users:
                unfinished.creating -= count
                if not refused:
                    unfinished.counted += count
                    unfinished.created += count

    async def _unfinished(self, user_id: str, most: int) -> _Unfinished:
        known = self._users.setdefault(user_id, _Unfinished())
        self._users.move_to_end(user_id)
        if len(self._users) > MAX_REMEMBERED:
            self._users.popitem(last=False)
        async with known.counting:
            now = self._clock()
            if now - known.counted_at >= self._count_seconds:
                created = known.created
                counted = await self._store.count_active(user_id, limit=most)
                # The count may miss what was committed while it was made.
                known.counted = counted + known.created - created
                known.counted_at = now
        return known
