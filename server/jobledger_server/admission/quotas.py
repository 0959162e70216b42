"""Quotas: the limits of one identity, from the access file."""

import time
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from jobledger_server.domain.errors import LimitExceeded

MAX_REMEMBERED = 10_000
"""Callers at most whose rates are known. The one that called longest ago is removed first."""

ROUNDING = 1e-6

CALL_BYTES = 16 * 1024
"""A request or an answer counts as one call more for each time that it has as many bytes."""


@dataclass(frozen=True, slots=True)
class Quotas:
    """The limits of a caller. None: only what holds for every caller.

    Attributes:
        caller: Its identity, which errors name.
        calls_per_second: Calls of Jobledger's own services. A request or an answer counts as one
            more for each CALL_BYTES.
        jobs_per_second: Jobs that it creates.
        unfinished_jobs: Jobs that are not terminal, of each user for whom it creates some.
        watches: Open watches, and waits for operations.
        work_streams: Open streams of workers.
        waiting_bytes: Bytes of requests and answers under way, and of changes that wait.
    """

    caller: str = ""
    calls_per_second: float | None = None
    jobs_per_second: float | None = None
    unfinished_jobs: int | None = None
    watches: int | None = None
    work_streams: int | None = None
    waiting_bytes: int | None = None


NO_QUOTAS = Quotas()

QUOTAS: ContextVar[Quotas] = ContextVar("quotas", default=NO_QUOTAS)
"""The quotas of the caller of the call that the current task serves."""


class RateLimit:
    """Limits how often each caller does something, on average.

    A caller may do at once what the rate allows for one second. Something heavier is admitted
    once its whole allowance is unused, and delays what follows for longer.

    Args:
        limit: What is limited, as the error names it: "calls a second".
        clock: Returns seconds.
    """

    def __init__(self, limit: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.refused = {"caller": 0}
        """How often something was refused."""
        self._clock = clock
        # By caller: how much it may do now, and since when that is known. Negative after something
        # heavy.
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str, rate: float, weight: int = 1) -> None:
        """Count something that a caller does. Raises LimitExceeded if that is too often."""
        level = self._level(caller, rate)
        if level < 1 - ROUNDING:
            self.refused["caller"] += 1
            raise LimitExceeded(
                self.limit, rate, scope="caller", caller=caller, retry_after=(1 - level) / rate
            )
        self._levels[caller] = level - weight, self._clock()

    def add(self, caller: str, rate: float, weight: int) -> None:
        """Count something more for what a caller was already admitted to do."""
        self._levels[caller] = self._level(caller, rate) - weight, self._clock()

    def _level(self, caller: str, rate: float) -> float:
        now, most = self._clock(), max(rate, 1.0)
        level, since = self._levels.get(caller, (most, now))
        level = min(most, level + (now - since) * rate)
        self._levels[caller] = level, now
        self._levels.move_to_end(caller)
        if len(self._levels) > MAX_REMEMBERED:
            self._levels.popitem(last=False)
        return level
