"""Admission: a limit on what each caller, and all callers together, have under way."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from jobledger_server.admission.caller import SERVICE, Caller, Quotas
from jobledger_server.domain.errors import LimitExceeded

Key = TypeVar("Key")


class Admission:
    """Admits at most `total` of something at once, and at most `each` of one caller.

    When the total is reached, an origin that holds less than an equal part of it is still
    admitted, so that no number of connections shuts out another one. So n origins that
    come one after the other can hold up to 1 + ln(n) times the total.

    Args:
        limit: What is limited, as errors and metrics name it: "watches".
        total: The limit for all callers together.
        each: The limit for one caller.
        quota: Returns an identity's own limit, which replaces `each`, or None.
    """

    def __init__(
        self,
        limit: str,
        *,
        total: int,
        each: int,
        quota: Callable[[Quotas], int | None] = lambda _: None,
    ) -> None:
        self._quota = quota
        self.limit = limit
        self.total = total
        self._each = each
        self._by_caller: dict[tuple[str, str], int] = {}
        self._by_origin: dict[str, int] = {}
        self.held = 0
        """What all callers hold now."""
        self.refused = {"caller": 0, "server": 0}
        """How often something was refused, by the scope of the limit."""

    @contextmanager
    def admit(self, caller: Caller, weight: int = 1) -> Iterator[None]:
        """Hold `weight` for a caller during the block.

        Raises:
            LimitExceeded: The caller, or all callers together, hold too much.
        """
        self.acquire(caller, weight)
        try:
            yield
        finally:
            self.release(caller, weight)

    def acquire(self, caller: Caller, weight: int = 1, *, refuse: bool = True) -> None:
        """Hold `weight` for a caller until `release`.

        A caller that holds nothing is not refused by its own limit, and while nothing at
        all is held nobody is refused: an item heavier than a limit could otherwise never
        run.

        Args:
            caller: The caller. SERVICE is never refused.
            weight: How much.
            refuse: If false, too much is counted and not refused.

        Raises:
            LimitExceeded: The caller, or all callers together, hold too much.
        """
        if not weight:
            return
        key = caller.key
        own, of_origin = self._by_caller.get(key, 0), self._by_origin.get(caller.origin, 0)
        if refuse and caller is not SERVICE:
            quota = self._quota(caller.quotas)
            each = self._each if quota is None else quota
            if own and own + weight > each:
                self.refused["caller"] += 1
                raise LimitExceeded(self.limit, each, scope="caller", caller=caller.identity)
            if self.held and self.held + weight > self.total:
                origins = len(self._by_origin) + (not of_origin)
                if of_origin + weight > self.total // origins:
                    self.refused["server"] += 1
                    raise LimitExceeded(self.limit, self.total)
        self._by_caller[key] = own + weight
        self._by_origin[caller.origin] = of_origin + weight
        self.held += weight

    def release(self, caller: Caller, weight: int = 1) -> None:
        """Release what `acquire` holds."""
        if not weight:
            return
        self.held -= weight
        _subtract(self._by_caller, caller.key, weight)
        _subtract(self._by_origin, caller.origin, weight)


def _subtract(held: dict[Key, int], key: Key, weight: int) -> None:
    remaining = held[key] - weight
    if remaining:
        held[key] = remaining
    else:
        del held[key]
