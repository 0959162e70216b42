"""Admission: how much at once, for each caller and for all, and whose turn it is.

Who has no identity can give itself any name, so callers are told apart by where they
come from first, and by the names that they give themselves second.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Generic, NamedTuple, TypeVar

from jobledger_server.domain.errors import LimitExceeded

Item = TypeVar("Item")


class Caller(NamedTuple):
    """Who makes a call.

    `origin` is its identity or, where it has none, its connection. `name` is the
    owner or worker that its request names: behind a proxy thousands of callers
    share a connection. Empty where there is an identity.
    """

    origin: str
    name: str = ""


SERVICE = Caller("")
"""The service itself: reaper, retention and the like."""

CALLER: ContextVar[Caller] = ContextVar("caller", default=SERVICE)
"""Who made the call that the current task serves."""


class Admission:
    """At most `total` of something at once, and at most `each` of one caller.

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
            self.give_back(caller, weight)

    def take(self, caller: Caller, weight: int = 1) -> None:
        """Count `weight` for a caller until `give_back`. Raises LimitExceeded.

        Whoever holds nothing is admitted whatever the weight: something that is
        heavier than its limit could otherwise never run.
        """
        own = self._held.get(caller, 0)
        if own and own + weight > self._each:
            raise LimitExceeded(self._limit, self._each, scope="caller")
        if self.held and self.held + weight > self._total:
            raise LimitExceeded(self._limit, self._total)
        self._held[caller] = own + weight
        self.held += weight

    def give_back(self, caller: Caller, weight: int = 1) -> None:
        """End what `take` began."""
        self.held -= weight
        left = self._held[caller] - weight
        if left:
            self._held[caller] = left
        else:
            del self._held[caller]


class FairQueue(Generic[Item]):
    """A queue that gives out one item of each origin in turn, and of its callers in turn.

    Each caller's own items keep their order.
    """

    def __init__(self) -> None:
        # Whose turn is next stands first in each of the two; who has nothing queued in neither.
        self._origins: dict[str, dict[str, deque[Item]]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, caller: Caller, item: Item) -> None:
        """Add an item to the end of the caller's own queue."""
        self._origins.setdefault(caller.origin, {}).setdefault(caller.name, deque()).append(item)
        self._length += 1

    def pop(self) -> Item:
        """Remove the next item. Raises StopIteration where there is none."""
        origin = next(iter(self._origins))
        names = self._origins.pop(origin)
        name = next(iter(names))
        queue = names.pop(name)
        item = queue.popleft()
        self._length -= 1
        # Back at the end, so that everybody else comes first.
        if queue:
            names[name] = queue
        if names:
            self._origins[origin] = names
        return item

    def discard(self, caller: Caller, item: Item) -> None:
        """Remove an item that is still queued."""
        names = self._origins[caller.origin]
        names[caller.name].remove(item)
        self._length -= 1
        if not names[caller.name]:
            del names[caller.name]
        if not names:
            del self._origins[caller.origin]


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
            if turn.cancelled():
                self._waiting.discard(caller, turn)
            else:  # the place came at the same moment
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        if len(self._waiting):
            self._waiting.pop().set_result(None)
        else:
            self._free += 1
