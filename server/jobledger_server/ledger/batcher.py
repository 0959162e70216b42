"""Things that arrive together are done together.

While one batch is under way the next one gathers, and those who were answered
together are given a moment to come back, so a batch grows with the load and a
single caller waits for nobody. The idea is group commit as databases do
it; see DeWitt et al., "Implementation Techniques for Main Memory Database
Systems" (1984).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

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


class Batcher(Generic[Item, Result]):
    """Runs `flush` for one batch after the other, in a task of its own.

    `max_batch` and `max_waiting` are counted in what items weigh, by default 1 each.

    A caller that goes away takes nothing with it: its item is done all the
    same, and nobody else's batch is disturbed. At the end of the `async with`
    block everything that was taken is finished first.
    """

    def __init__(
        self,
        name: str,
        flush: Flush[Item, Result],
        *,
        max_batch: int,
        max_waiting: int,
        weigh: Callable[[Item], int] = lambda _: 1,
    ) -> None:
        self._name = name
        self._flush = flush
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._weigh = weigh
        self._weight = 0
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._wanted = 1
        self._arrived = asyncio.Event()
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._new_future: Callable[[], asyncio.Future[Result]]

    async def __aenter__(self) -> Self:
        # Which loop runs is asked once: each time Python would ask the system for the process.
        self._new_future = asyncio.get_running_loop().create_future
        self._task = asyncio.create_task(self._run(), name=f"batcher of {self._name}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True
        self._arrived.set()
        if self._task is not None:
            await self._task

    async def submit(self, item: Item) -> Result:
        """Return the item's result, or raise it if it is an error. Raises LimitExceeded."""
        return await self.put(item)

    def put(self, item: Item) -> asyncio.Future[Result]:
        """Put the item into the next batch, and return the future of its result.

        Raises LimitExceeded.
        """
        if self._closed or self._weight >= self._max_waiting:
            raise LimitExceeded(f"waiting {self._name}", self._max_waiting)
        future = self._new_future()
        self._waiting.append((item, future))
        self._weight += self._weigh(item)
        if len(self._waiting) >= self._wanted:  # not for each: waking costs as much as deciding
            self._arrived.set()
        return future

    async def _run(self) -> None:
        callers = 1
        while True:
            await self._arrived.wait()
            while self._waiting:
                if callers > 1:
                    await self._linger(callers)
                batch = self._take()
                await self._do(batch)
                callers = len(batch) + len(self._waiting)
                del batch  # else its results would be kept until the next one
            if self._closed:
                return
            self._arrived.clear()

    def _take(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        """Take what comes next, up to the weight of a batch; one item at least."""
        batch = []
        weight = 0
        while self._waiting and weight < self._max_batch:
            taken = self._waiting.popleft()
            batch.append(taken)
            weight += self._weigh(taken[0])
        self._weight -= weight
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

    async def _do(self, batch: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        results: Sequence[Result | Exception]
        try:
            results = await self._flush([item for item, _ in batch])
        except Exception as error:  # noqa: BLE001
            # Whatever went wrong is each caller's answer.
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():  # its caller went away
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
