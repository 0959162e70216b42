"""Fair queueing: callers are served in turn, however much one of them has queued."""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from heapq import heappop, heappush
from typing import Generic, TypeVar

from jobledger_server.admission.caller import Caller

Item = TypeVar("Item")


class _FairOrder:
    """Orders flows so that each gets an equal share by weight.

    Start-time fair queueing: P. Goyal, H. Vin, H. Cheng, "Start-Time Fair Queueing"
    (1996). But the virtual time also advances by one while each of the flows is served once:
    new flows that keep coming would stand before one that was served already, for ever.
    """

    def __init__(self) -> None:
        self._flows: list[tuple[float, int, str]] = []
        self._arrivals = itertools.count()  # equal start times: first come, first served
        self._virtual_time = 0.0  # in weight, not in seconds
        self._start = 0.0  # of the flow that was served last

    def add(self, flow: str) -> None:
        """Add a new flow."""
        heappush(self._flows, (self._virtual_time, next(self._arrivals), flow))

    def add_again(self, flow: str, served: int) -> None:
        """Add the flow that was just served an item of weight `served`."""
        heappush(self._flows, (self._start + served, next(self._arrivals), flow))

    def pop(self) -> str:
        """Remove the flow whose turn it is."""
        self._start, _, flow = heappop(self._flows)
        now = max(self._virtual_time, self._start)
        self._virtual_time = now + 1 / (len(self._flows) + 1)
        return flow


class FairQueue(Generic[Item]):
    """A queue that serves origins in equal shares, and the callers of an origin likewise.

    The items of one caller keep their order.
    """

    def __init__(self) -> None:
        self._queues: dict[str, dict[str, deque[tuple[Item, int]]]] = {}  # by origin and name
        self._origins = _FairOrder()
        self._names: dict[str, _FairOrder] = {}  # by origin
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, caller: Caller, item: Item, weight: int = 1) -> None:
        """Append an item to the caller's queue."""
        origin, name = caller.key
        queues = self._queues.get(origin)
        if queues is None:
            queues = self._queues[origin] = {}
            self._names[origin] = _FairOrder()
            self._origins.add(origin)
        queue = queues.get(name)
        if queue is None:
            queue = queues[name] = deque()
            self._names[origin].add(name)
        queue.append((item, weight))
        self._length += 1

    def pop(self) -> Item:
        """Remove and return the next item. Raises IndexError if the queue is empty."""
        origin = self._origins.pop()
        queues, names = self._queues[origin], self._names[origin]
        name = names.pop()
        queue = queues[name]
        item, weight = queue.popleft()
        if queue:
            names.add_again(name, weight)
        else:
            del queues[name]
        if queues:
            self._origins.add_again(origin, weight)
        else:
            del self._queues[origin], self._names[origin]
        self._length -= 1
        return item


class Turns:
    """A semaphore that serves its waiters by fair queueing.

    Args:
        slots: How many callers may hold a turn at once.
    """

    def __init__(self, slots: int) -> None:
        self._slots = self._free = slots
        self._waiters: FairQueue[asyncio.Future[None]] = FairQueue()

    @property
    def held(self) -> int:
        """How many turns are held."""
        return self._slots - self._free

    @asynccontextmanager
    async def turn(self, caller: Caller) -> AsyncIterator[None]:
        """Wait for the caller's turn, and hold it during the block."""
        await self._acquire(caller)
        try:
            yield
        finally:
            self._release()

    async def _acquire(self, caller: Caller) -> None:
        if self._free:
            self._free -= 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.put(caller, waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # the turn was granted at the same moment
                self._release()
            raise

    def _release(self) -> None:
        """Grant the turn to the next waiter, if there is one."""
        while len(self._waiters):
            waiter = self._waiters.pop()
            if not waiter.cancelled():
                waiter.set_result(None)
                return
        self._free += 1
