"""Admission: how much at once, for each caller and for all, and whose turn it is.

A client without an identity can give itself any name, so callers are distinguished by
their connections first, and by the names that they give themselves second.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from heapq import heappop, heappush
from typing import Generic, NamedTuple, TypeVar

from jobledger_server.domain.errors import LimitExceeded

Item = TypeVar("Item")
Key = TypeVar("Key")


class Caller(NamedTuple):
    """Who makes a call.

    `origin` is its identity or, where it has none, its connection. `name` is the
    owner or worker that its request names: behind a proxy thousands of callers
    share a connection. Empty where there is an identity.
    """

    origin: str
    name: str = ""


SERVICE = Caller("")
"""The service itself: reaper, retention and the like. No limit of callers applies to it."""

CALLER: ContextVar[Caller] = ContextVar("caller", default=SERVICE)
"""Who made the call that the current task serves."""


class Admission:
    """At most `total` of something at once, and at most `each` of one caller.

    Where the total is taken, an origin that holds less than an equal part of it is
    admitted all the same, so that no number of connections shuts out another one.
    So n origins that come one after the other can hold up to 1 + ln(n) times the total.

    Args:
        limit: What is limited, as the error names it: "watches".
        total: The most for all callers together.
        each: The most for one caller.
    """

    def __init__(self, limit: str, *, total: int, each: int) -> None:
        self._limit = limit
        self._total = total
        self._each = each
        self._held: dict[Caller, int] = {}
        self._by_origin: dict[str, int] = {}
        self.held = 0

    @contextmanager
    def admit(self, weight: int = 1) -> Iterator[None]:
        """Count `weight` for the caller of the current call until the block ends.

        Raises:
            LimitExceeded: The caller, or all callers together, hold too much.
        """
        caller = CALLER.get()
        self.take(caller, weight)
        try:
            yield
        finally:
            self.release(caller, weight)

    def take(self, caller: Caller, weight: int = 1, *, refuse: bool = True) -> None:
        """Count `weight` for a caller until `release`.

        Where nothing is held, anything is admitted: what is heavier than the limit
        could otherwise never run.

        Args:
            caller: Whose it is. SERVICE is never refused.
            weight: How much.
            refuse: Whether it is refused where it is too much, or counted all the same.

        Raises:
            LimitExceeded: The caller, or all callers together, hold too much.
        """
        if not weight:
            return
        own, of_origin = self._held.get(caller, 0), self._by_origin.get(caller.origin, 0)
        if refuse and caller is not SERVICE:
            if own and own + weight > self._each:
                raise LimitExceeded(self._limit, self._each, scope="caller")
            if self.held and self.held + weight > self._total:
                origins = len(self._by_origin) + (not of_origin)
                if of_origin + weight > self._total // origins:
                    raise LimitExceeded(self._limit, self._total)
        self._held[caller] = own + weight
        self._by_origin[caller.origin] = of_origin + weight
        self.held += weight

    def release(self, caller: Caller, weight: int = 1) -> None:
        """End what `take` began."""
        if not weight:
            return
        self.held -= weight
        _subtract(self._held, caller, weight)
        _subtract(self._by_origin, caller.origin, weight)


def _subtract(held: dict[Key, int], key: Key, weight: int) -> None:
    left = held[key] - weight
    if left:
        held[key] = left
    else:
        del held[key]


class _Shares(Generic[Item]):
    """An order of keys in which each gets the same share: who has had least comes first.

    Start-time fair queueing: P. Goyal, H. Vin, H. Cheng, "Start-Time Fair Queueing"
    (1996).
    """

    def __init__(self) -> None:
        self._order: list[tuple[int, int, Item]] = []
        self._number = itertools.count()  # among equals the first that came
        self._time = 0  # in weight, not in seconds

    def add(self, key: Item, weight: int = 0) -> None:
        """Add a key that has just had something of this weight."""
        heappush(self._order, (self._time + weight, next(self._number), key))

    def pop(self) -> Item:
        self._time, _, key = heappop(self._order)
        return key


class FairQueue(Generic[Item]):
    """A queue from which each origin gets the same share, and within it each of its callers.

    The items of one caller keep their order.
    """

    def __init__(self) -> None:
        self._origins: dict[str, dict[str, deque[tuple[Item, int]]]] = {}
        self._by_origin: _Shares[str] = _Shares()
        self._by_name: dict[str, _Shares[str]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, caller: Caller, item: Item, weight: int = 1) -> None:
        """Add an item to the end of the caller's own queue."""
        origin, name = caller
        names = self._origins.get(origin)
        if names is None:
            names = self._origins[origin] = {}
            self._by_name[origin] = _Shares()
            self._by_origin.add(origin)
        queue = names.get(name)
        if queue is None:
            queue = names[name] = deque()
            self._by_name[origin].add(name)
        queue.append((item, weight))
        self._length += 1

    def pop(self) -> Item:
        """Remove the next item. Raises IndexError where there is none."""
        origin = self._by_origin.pop()
        names, shares = self._origins[origin], self._by_name[origin]
        name = shares.pop()
        queue = names[name]
        item, weight = queue.popleft()
        if queue:
            shares.add(name, weight)
        else:
            del names[name]
        if names:
            self._by_origin.add(origin, weight)
        else:
            del self._origins[origin], self._by_name[origin]
        self._length -= 1
        return item


class Turns:
    """Lets a few callers at a time do something; the rest wait, and are let in by turns.

    Args:
        places: How many at once.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: FairQueue[asyncio.Future[None]] = FairQueue()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until it is the turn of the current call's caller; hold a place until the end."""
        await self._wait(CALLER.get())
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, caller: Caller) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.put(caller, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # the place came at the same moment
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while len(self._waiting):
            turn = self._waiting.pop()
            if not turn.cancelled():  # its caller has left
                turn.set_result(None)
                return
        self._free += 1
