"""Admission: a limit on what each caller, and all callers together, have under way."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from jobledger_server.admission.caller import CALLER, SERVICE, Caller
from jobledger_server.admission.quotas import QUOTAS
from jobledger_server.domain.errors import LimitExceeded

Key = TypeVar("Key")


class Admission:
    """Admits at most `total` of something at once, and at most `each` of one caller.

    When the total is reached, an origin that holds less than an equal part of it is still
    admitted, so that no number of connections shuts out another one. So n origins that
    come one after the other can hold up to 1 + ln(n) times the total.

    Args:
        limit: What is limited, as the error names it: "watches".
        total: The limit for all callers together.
        each: The limit for one caller.
        quota: The attribute of Quotas that is an identity's own limit, instead of `each`.
    """

    def __init__(self, limit: str, *, total: int, each: int, quota: str = "") -> None:
        self._quota = quota
        self.limit = limit
        self.total = total
        self._each = each
        self._by_caller: dict[Caller, int] = {}
        self._by_origin: dict[str, int] = {}
        self.held = 0
        """What all callers hold now."""
        self.refused = {"caller": 0, "server": 0}
        """How often something was refused, by the scope of the limit."""

    @contextmanager
    def admit(self, weight: int = 1) -> Iterator[None]:
        """Hold `weight` for the caller of the current call during the block.

        Raises:
            LimitExceeded: The caller, or all callers together, hold too much.
        """
        caller = CALLER.get()
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
        own, of_origin = self._by_caller.get(caller, 0), self._by_origin.get(caller.origin, 0)
        if refuse and caller is not SERVICE:
            each, identity = self._each, ""
            if self._quota:
                quotas = QUOTAS.get()
                own_quota, identity = getattr(quotas, self._quota), quotas.caller
                each = each if own_quota is None else own_quota
            if own and own + weight > each:
                self.refused["caller"] += 1
                raise LimitExceeded(self.limit, each, scope="caller", caller=identity)
            if self.held and self.held + weight > self.total:
                origins = len(self._by_origin) + (not of_origin)
                if of_origin + weight > self.total // origins:
                    self.refused["server"] += 1
                    raise LimitExceeded(self.limit, self.total)
        self._by_caller[caller] = own + weight
        self._by_origin[caller.origin] = of_origin + weight
        self.held += weight

    def release(self, caller: Caller, weight: int = 1) -> None:
        """Release what `acquire` holds."""
        if not weight:
            return
        self.held -= weight
        _subtract(self._by_caller, caller, weight)
        _subtract(self._by_origin, caller.origin, weight)


def _subtract(held: dict[Key, int], key: Key, weight: int) -> None:
    remaining = held[key] - weight
    if remaining:
        held[key] = remaining
    else:
        del held[key]
