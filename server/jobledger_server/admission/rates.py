"""Rates: how often each caller does something."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from weakref import WeakValueDictionary

from jobledger_server.admission.caller import Caller, Quotas
from jobledger_server.domain.errors import LimitExceeded

MAX_REMEMBERED = 10_000
"""Callers at most whose rates are known. The one that called longest ago is removed first."""

ROUNDING = 1e-6

CALL_BYTES = 16 * 1024
"""A request or an answer counts as one call more for each time that it has as many bytes."""

_UNLIMITED: AbstractAsyncContextManager[None] = nullcontext()


class Allowances:
    """What each of many may do now, by its key: at most what its rate allows for one second.

    A token bucket for each. It is negative after something heavy.

    Args:
        clock: Returns seconds. By default it is the event loop's.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or asyncio.get_running_loop().time
        # With the time since when each is known.
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def of(self, key: str, rate: float) -> float:
        """Return how much it may do now."""
        now, most = self._clock(), max(rate, 1.0)
        level, since = self._levels.get(key, (most, now))
        level = min(most, level + (now - since) * rate)
        self._levels[key] = level, now
        self._levels.move_to_end(key)
        if len(self._levels) > MAX_REMEMBERED:
            self._levels.popitem(last=False)
        return level

    def spend(self, key: str, rate: float, weight: float) -> None:
        """Count what it does."""
        self._levels[key] = self.of(key, rate) - weight, self._clock()


class RateLimit:
    """Limits how often each caller with a quota does something, on average.

    A caller may do at once what the rate allows for one second. Something heavier is admitted
    once its whole allowance is unused, and delays what follows for longer.

    Args:
        limit: What is limited, as errors and metrics name it: "calls_per_second".
        quota: Returns a caller's rate, or None if it may do this as often as it wants.
        clock: Returns seconds. By default it is the event loop's.
    """

    def __init__(
        self,
        limit: str,
        quota: Callable[[Quotas], float | None],
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.limit = limit
        self.refused = {"caller": 0}
        """How often something was refused."""
        self._quota = quota
        self._allowances = Allowances(clock)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def take(self, caller: Caller, weight: int = 1) -> None:
        """Count something that a caller does. Raises LimitExceeded if that is too often."""
        rate = self._quota(caller.quotas)
        if rate is None:
            return
        level = self._allowances.of(caller.identity, rate)
        if level < 1 - ROUNDING:
            self.refused["caller"] += 1
            raise LimitExceeded(
                self.limit,
                rate,
                scope="caller",
                caller=caller.identity,
                retry_after=(1 - level) / rate,
            )
        self._allowances.spend(caller.identity, rate, weight)

    def add(self, caller: Caller, weight: int) -> None:
        """Count something more for what a caller was already admitted to do."""
        rate = self._quota(caller.quotas)
        if rate is not None:
            self._allowances.spend(caller.identity, rate, weight)

    def wait_of(self, caller: Caller) -> float:
        """Return in how many seconds a caller may do something again, 0 if it may now."""
        rate = self._quota(caller.quotas)
        if rate is None:
            return 0.0
        return max(0.0, (1 - ROUNDING - self._allowances.of(caller.identity, rate)) / rate)

    def alone(self, caller: Caller) -> AbstractAsyncContextManager[None]:
        """Return a context in which nothing else of a caller is, if it has a quota.

        What waits until the caller may do something, and is counted once it is known what it is,
        belongs in one.
        """
        if self._quota(caller.quotas) is None:
            return _UNLIMITED
        lock = self._locks.get(caller.identity)
        if lock is None:
            lock = self._locks[caller.identity] = asyncio.Lock()
        return lock
