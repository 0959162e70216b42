"""Things that arrive together are done together.

While one batch is under way the next one gathers, and those who were answered
together are given a moment to come back, so a batch grows with the load and a
single caller waits for nobody. The idea is group commit as databases do
it; see DeWitt et al., "Implementation Techniques for Main Memory Database
Systems" (1984).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from jobledger_server.admission.admission import Admission
from jobledger_server.admission.caller import CALLER, Caller
from jobledger_server.admission.fair_queue import FairQueue
from jobledger_server.domain.errors import LimitExceeded

Item = TypeVar("Item")
Result = TypeVar("Result")

TICK_SECONDS = 0.001
"""How often a batch that waits for callers looks whether any have come."""

QUIET = 2
"""Ticks without anybody coming: then no more are expected."""

LONGEST = 10
"""Ticks that a batch waits at most."""

Flush = Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]]
"""Does a batch: one result for each item, in the same order. What it raises is
the result of every item of the batch."""


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Item, Result]):
    """An item that waits for its result."""

    item: Item
    future: asyncio.Future[Result]
    caller: Caller
    weight: int
    bytes: int


class Batcher(Generic[Item, Result]):
    """Runs `flush` for one batch after the other, in a task of its own.

    Args:
        name: What waits, as errors name it: "commands".
        flush: Does a batch.
        max_batch: The most weight of one batch.
        max_batch_bytes: The most bytes of one batch.
        max_waiting: The most weight that waits, or is under way, at once.
        max_waiting_bytes: The most bytes of it.
        share: The part of these two that one caller may take, up to 1.
        weigh: The weight of an item; 1 for each by default.
        measure: The bytes that an item holds in memory; 0 by default.
        reading: Makes for each batch what says how many bytes an item adds to what the batch
            reads; 0 by default.

    Callers get equal shares by weight: however many items one of them has waiting,
    the next item of another is in the next batch or the one after.

    A caller that leaves takes nothing with it: its item is done all the same, and
    nobody else's batch is disturbed. At the end of the `async with` block
    everything that was accepted is finished first.
    """

    def __init__(
        self,
        name: str,
        flush: Flush[Item, Result],
        *,
        max_batch: int,
        max_batch_bytes: int = 4 * 1024 * 1024,
        max_waiting: int,
        max_waiting_bytes: int = 256 * 1024 * 1024,
        share: float = 1.0,
        weigh: Callable[[Item], int] = lambda _: 1,
        measure: Callable[[Item], int] = lambda _: 0,
        reading: Callable[[], Callable[[Item], int]] = lambda: lambda _: 0,
    ) -> None:
        self._name = name
        self._flush = flush
        self._max_batch = max_batch
        self._max_batch_bytes = max_batch_bytes
        self._weigh = weigh
        self._measure = measure
        self._reading = reading
        self._items = _admission(f"waiting {name}", max_waiting, share)
        self._bytes = _admission(f"bytes of waiting {name}", max_waiting_bytes, share)
        self._max_waiting = max_waiting
        self._waiting: FairQueue[_Waiting[Item, Result]] = FairQueue()
        self._wanted = 1
        self._arrived = asyncio.Event()
        self._closed = False
        self._new_future: Callable[[], asyncio.Future[Result]]
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        # Which loop runs is asked once: each time Python would ask the system for the process.
        self._new_future = asyncio.get_running_loop().create_future
        self.task = asyncio.create_task(self._run(), name=f"batcher of {self._name}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True
        self._arrived.set()
        if self.task is not None:
            await asyncio.wait([self.task])

    async def submit(self, item: Item) -> Result:
        """Return the item's result, or raise it if it is an error. Raises LimitExceeded."""
        return await self.put(item)

    def put(self, item: Item) -> asyncio.Future[Result]:
        """Put the item into the next batch, and return the future of its result.

        Raises LimitExceeded.
        """
        if self._closed:
            raise LimitExceeded(f"waiting {self._name}", self._max_waiting)
        caller = CALLER.get()
        waiting = _Waiting(item, self._new_future(), caller, self._weigh(item), self._measure(item))
        self._items.acquire(caller, waiting.weight)
        try:
            self._bytes.acquire(caller, waiting.bytes)
        except LimitExceeded:
            self._items.release(caller, waiting.weight)
            raise
        self._waiting.put(caller, waiting, waiting.weight)
        if len(self._waiting) >= self._wanted:  # not for each: waking costs as much as deciding
            self._arrived.set()
        return waiting.future

    async def _run(self) -> None:
        try:
            await self._run_batches()
        finally:
            self._closed = True
            while len(self._waiting):  # it ended by an error: nobody may wait for it
                self._waiting.pop().future.cancel()

    async def _run_batches(self) -> None:
        callers = 1
        while True:
            await self._arrived.wait()
            while len(self._waiting):
                if callers > 1:
                    await self._linger(callers)
                batch = self._take()
                await self._do(batch)
                callers = len(batch) + len(self._waiting)
                del batch  # else its results would be kept until the next one
            if self._closed:
                return
            self._arrived.clear()

    def _take(self) -> list[_Waiting[Item, Result]]:
        """Take what comes next, up to the size of a batch; one item at least."""
        batch = []
        weight = size = 0
        read = self._reading()
        while len(self._waiting) and weight < self._max_batch and size < self._max_batch_bytes:
            waiting = self._waiting.pop()
            batch.append(waiting)
            weight += waiting.weight
            size += waiting.bytes + read(waiting.item)
        return batch

    async def _linger(self, callers: int) -> None:
        """Wait a moment for those who called last time too: answered together, they come back.

        It ends when as many are there, so that a steady number of callers waits
        for nobody and a single one never; when nobody has come for two ticks, so that
        callers who come when they like wait for nobody either; and after LONGEST ticks,
        so that of many callers one part is answered while the database works for
        another.
        """
        wanted = min(callers, self._max_batch)
        quiet = 0
        for _ in range(LONGEST):
            there = len(self._waiting)
            if there >= wanted or quiet == QUIET or self._closed:
                break
            self._wanted = wanted
            await self._tick()
            quiet = quiet + 1 if len(self._waiting) == there else 0
        self._wanted = 1

    async def _tick(self) -> None:
        """Wait for as many as are wanted, or for the end of the block, but one tick at most."""
        self._arrived.clear()
        # Not asyncio.timeout, which for each tick would cancel a task and catch what that raises.
        tick = asyncio.get_running_loop().call_later(TICK_SECONDS, self._arrived.set)
        try:
            await self._arrived.wait()
        finally:
            tick.cancel()

    async def _do(self, batch: Sequence[_Waiting[Item, Result]]) -> None:
        results: Sequence[Result | Exception]
        try:
            results = await self._flush([waiting.item for waiting in batch])
        except Exception as error:  # noqa: BLE001
            # Whatever went wrong is each caller's answer.
            results = [error] * len(batch)
        for waiting, result in zip(batch, results, strict=True):
            self._items.release(waiting.caller, waiting.weight)
            self._bytes.release(waiting.caller, waiting.bytes)
            future = waiting.future
            if future.done():  # its caller left
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)


def _admission(limit: str, total: int, share: float) -> Admission:
    return Admission(limit, total=total, each=max(1, int(total * share)))
