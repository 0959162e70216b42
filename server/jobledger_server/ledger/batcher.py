"""Group commit: items that arrive while one batch runs form the next batch.

Callers that are answered together often call again together, so the batcher lingers a few
milliseconds for them. Batches therefore grow with the load, and a single caller never
waits for others. The idea is from DeWitt et al., "Implementation Techniques for Main
Memory Database Systems" (1984).
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from time import perf_counter
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from jobledger_server.admission.admission import Admission
from jobledger_server.admission.caller import Caller, Quotas
from jobledger_server.admission.endings import ShuttingDown
from jobledger_server.admission.fair_queue import FairQueue
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.store import StoreUnavailable
from jobledger_server.telemetry.instruments import COUNTS, LATENCY_SECONDS, Histogram
from jobledger_server.tuning import Tuning

Item = TypeVar("Item")
Result = TypeVar("Result")

TICK_SECONDS = 0.001
"""A lingering batcher checks this often whether items have arrived."""

QUIET_TICKS = 2
"""Lingering ends after this many ticks in a row without a new item."""


NOTHING: Mapping[Hashable, int] = {}


class Unfinished(Enum):
    """In place of the result of an item that is not done."""

    AGAIN = "AGAIN"


AGAIN = Unfinished.AGAIN

Flush = Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception | Unfinished]]]
"""Processes a batch and returns one result for each item, in the same order. With AGAIN the item
queues again, with all that was put together with it. An error that it raises is the result of every
item of the batch."""

Observe = Callable[[Caller, Item, Result | Exception], None]
"""Called with each result, before the one who put the item gets it."""


@dataclass(eq=False, slots=True)
class _Pending(Generic[Item, Result]):
    """Items that were put together, and whose results are pending."""

    items: Sequence[Item]
    future: asyncio.Future[Sequence[Result | Exception]]
    caller: Caller
    weight: int
    bytes: int
    touched: Mapping[Hashable, int]
    eager: int


class Batcher(Generic[Item, Result]):
    """Runs `flush` for one batch after the other, in its own task.

    Callers get equal shares by weight: however many items one of them has queued, the next
    item of another is in the next batch or the one after.

    A caller that is cancelled does not affect its batch: the item is processed anyway.
    The end of the `async with` block waits until every accepted item is processed. If the
    database is unavailable then, items that wait fail without being tried.

    Args:
        name: What is batched: "commands". Errors and metrics name the limits after it.
        flush: Processes a batch.
        max_batch: A batch is complete when its items have this weight. An attribute, which may
            change between two batches.
        max_batch_bytes: It is also complete when it holds this many bytes.
        linger_ticks: Lingering ends after this many ticks in any case.
        max_waiting: Limit of the weight that is queued or being processed.
        max_waiting_bytes: Limit of its bytes.
        share: The fraction of these two limits that one caller may use, up to 1.
        weigh: Returns the weight of an item. By default it is 1.
        measure: Returns the bytes that an item holds in memory. By default none.
        touch: Returns what several items of a batch may have in common, and the weight that it adds
            to a batch once. By default nothing.
        patient: Returns whether nobody lingers for an item as long as others are queued. A steady
            trickle of such items would make each batch linger. By default none is.
        observe: Called with each result. By default nothing is.
    """

    def __init__(
        self,
        name: str,
        flush: Flush[Item, Result],
        *,
        max_batch: int,
        max_batch_bytes: int = 4 * 1024 * 1024,
        linger_ticks: int = Tuning().linger_ticks,
        max_waiting: int,
        max_waiting_bytes: int = 256 * 1024 * 1024,
        share: float = 1.0,
        weigh: Callable[[Item], int] = lambda _: 1,
        measure: Callable[[Item], int] = lambda _: 0,
        touch: Callable[[Item], Mapping[Hashable, int]] = lambda _: NOTHING,
        patient: Callable[[Item], bool] = lambda _: False,
        observe: Observe[Item, Result] | None = None,
    ) -> None:
        self.name = name
        self._flush = flush
        self.max_batch = max_batch
        self._max_batch_bytes = max_batch_bytes
        self._linger_ticks = linger_ticks
        self._weigh = weigh
        self._measure = measure
        self._touch = touch
        self._patient = patient
        self._observe = observe
        self._items = _admission(f"waiting_{name}", max_waiting, share)
        self._bytes = _admission(
            f"waiting_{name}_bytes", max_waiting_bytes, share, lambda quotas: quotas.waiting_bytes
        )
        self.admissions = self._items, self._bytes
        self.sizes = Histogram(COUNTS)
        """Items of each batch."""
        self.seconds = Histogram(LATENCY_SECONDS)
        """How long each batch took to process."""
        self._queue: FairQueue[_Pending[Item, Result]] = FairQueue()
        self._running: Sequence[_Pending[Item, Result]] = ()
        self._queued = 0  # items in the queue
        self._eager = 0  # those of them that are not patient
        self._wake_at = 1  # the number of them at which `put` wakes the task
        self._wake_up = asyncio.Event()
        self._closed = False
        self._new_future: Callable[[], asyncio.Future[Any]]
        self.task: asyncio.Task[None] | None = None

    @property
    def held(self) -> int:
        """The weight that is queued or being processed."""
        return self._items.held

    async def __aenter__(self) -> Self:
        # Bound once, because get_running_loop makes a system call each time.
        self._new_future = asyncio.get_running_loop().create_future
        self.task = asyncio.create_task(self._run(), name=f"batcher of {self.name}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed = True
        self._wake_up.set()
        if self.task is not None:
            await asyncio.wait([self.task])

    async def submit(self, item: Item, caller: Caller) -> Result:
        """Return the item's result, or raise it if it is an error. Raises as `put` does."""
        (result,) = await self.put([item], caller)
        if isinstance(result, Exception):
            raise result
        return result

    def put(
        self, items: Sequence[Item], caller: Caller
    ) -> asyncio.Future[Sequence[Result | Exception]]:
        """Queue items for the same batch and return the future of their results, in order.

        Raises:
            LimitExceeded: Too much waits, of this caller or of all.
            ShuttingDown: The batcher accepts nothing more.
        """
        if self._closed:
            raise ShuttingDown
        if not items:  # they would wake nobody, so their caller would wait for another one's
            nothing: asyncio.Future[Sequence[Result | Exception]] = self._new_future()
            nothing.set_result([])
            return nothing
        weight, size = sum(map(self._weigh, items)), sum(map(self._measure, items))
        touched = self._touch(items[0])
        if len(items) > 1:
            touched = dict(each for item in items for each in self._touch(item).items())
        eager = len(items) - sum(map(self._patient, items))
        pending: _Pending[Item, Result]
        pending = _Pending(items, self._new_future(), caller, weight, size, touched, eager)
        self._items.acquire(caller, weight)
        try:
            self._bytes.acquire(caller, size)
        except LimitExceeded:
            self._items.release(caller, weight)
            raise
        self._enqueue(pending)
        # Not for each item: waking costs as much as deciding.
        if self._queued >= self._wake_at or 0 < self._eager == eager:
            self._wake_up.set()
        return pending.future

    def _enqueue(self, pending: _Pending[Item, Result]) -> None:
        # What all touch, or a single item does, is in no caller's favour.
        more = sum(pending.touched.values()) if len(pending.touched) > len(pending.items) else 0
        self._queue.put(pending.caller, pending, pending.weight + more)
        self._queued += len(pending.items)
        self._eager += pending.eager

    async def _run(self) -> None:
        try:
            await self._run_batches()
        finally:
            self._closed = True
            # After an error: nobody may wait indefinitely.
            for pending in self._running:
                pending.future.cancel()
            while len(self._queue):
                self._queue.pop().future.cancel()

    async def _run_batches(self) -> None:
        callers = eager = 1
        while True:
            await self._wake_up.wait()
            while len(self._queue):
                if callers > 1:
                    await self._linger(callers, eager)
                self._running = self._next_batch()
                callers, eager = await self._process(self._running)
                callers, eager = callers + self._queued, eager + self._eager
                self._running = []  # or its results would stay in memory until the next batch
            if self._closed:
                return
            self._wake_up.clear()

    def _next_batch(self) -> list[_Pending[Item, Result]]:
        batch = []
        weight = size = 0
        touched: set[Hashable] = set()
        while len(self._queue) and weight < self.max_batch and size < self._max_batch_bytes:
            pending = self._queue.pop()
            batch.append(pending)
            self._queued -= len(pending.items)
            self._eager -= pending.eager
            weight += pending.weight
            size += pending.bytes
            for each in pending.touched.keys() - touched:
                weight += pending.touched[each]
            touched.update(pending.touched)
        return batch

    async def _linger(self, callers: int, eager: int) -> None:
        """Wait a moment for as many items as there were callers last time.

        It ends when they have arrived, or a batch is full of bytes, so that a steady number of
        callers loses no time; after QUIET_TICKS without a new item, so that independent callers
        lose little; and after `linger_ticks`, so that of many callers some are answered while the
        database works for others. Where an item is not patient, only such items are waited for: as
        many as there were `eager` ones last time.
        """
        quiet = 0
        for _ in range(self._linger_ticks):
            arrived, expected = self._queued, callers
            if self._eager:
                arrived, expected = self._eager, eager
            expected = min(expected, self.max_batch)
            full = arrived >= expected or self._bytes.held >= self._max_batch_bytes
            if full or quiet == QUIET_TICKS or self._closed:
                break
            self._wake_at = expected
            await self._tick()
            quiet = quiet + 1 if arrived in (self._queued, self._eager) else 0
        self._wake_at = 1

    async def _tick(self) -> None:
        """Wait for a wake-up, for one tick at most."""
        self._wake_up.clear()
        # Not asyncio.timeout, which would cancel a task and catch the error on each tick.
        tick = asyncio.get_running_loop().call_later(TICK_SECONDS, self._wake_up.set)
        try:
            await self._wake_up.wait()
        finally:
            tick.cancel()

    async def _process(self, batch: Sequence[_Pending[Item, Result]]) -> tuple[int, int]:
        """Process a batch; return how many items were answered, and how many eager ones."""
        results: Sequence[Result | Exception | Unfinished]
        items = [item for pending in batch for item in pending.items]
        begun = perf_counter()
        try:
            results = await self._flush(items)
        except Exception as error:  # noqa: BLE001
            results = [error] * len(items)
        self.sizes.record(len(items))
        self.seconds.record(perf_counter() - begun)
        if self._closed and results and all(isinstance(r, StoreUnavailable) for r in results):
            # Each further batch would take seconds to fail, and the process would not end.
            batch = [*batch, *(self._queue.pop() for _ in range(len(self._queue)))]
            results = [*results, *[results[0]] * self._queued]
            self._queued = self._eager = 0
        begin = answered = eager = 0
        for pending in batch:
            end = begin + len(pending.items)
            settled = [result for result in results[begin:end] if result is not AGAIN]
            begin = end
            if len(settled) < len(pending.items):
                self._enqueue(pending)
                continue
            answered += len(settled)
            eager += pending.eager
            self._items.release(pending.caller, pending.weight)
            self._bytes.release(pending.caller, pending.bytes)
            if self._observe is not None:
                for item, result in zip(pending.items, settled, strict=True):
                    self._observe(pending.caller, item, result)
            if not pending.future.done():  # else its caller was cancelled
                pending.future.set_result(settled)
        return answered, eager


def _admission(
    limit: str,
    total: int,
    share: float,
    quota: Callable[[Quotas], int | None] = lambda _: None,
) -> Admission:
    return Admission(limit, total=total, each=max(1, int(total * share)), quota=quota)
