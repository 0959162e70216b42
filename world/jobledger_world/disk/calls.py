"""The calls of a connection, which run in the loop's thread instead of one of their own."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from jobledger_world.disk.errors import INTERRUPTED, LOCKED, sqlite_error
from jobledger_world.nodes import Node

RETRY_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.025, 0.025, 0.05, 0.05, 0.1)
"""Between the attempts of SQLite to get a lock; the last one repeats."""


@dataclass
class WriteLock:
    """The lock of a file: one connection at a time is in a transaction that writes."""

    holder: object | None = None

    def acquire(self, connection: object) -> bool:
        """Return whether the connection has it now."""
        if self.holder is None:
            self.holder = connection
        return self.holder is connection

    def release(self, connection: object) -> None:
        """Give it back, if the connection has it."""
        if self.holder is connection:
            self.holder = None


@dataclass(eq=False, slots=True)
class _Call:
    """What a call runs, whether it begins a transaction that writes, and who waits for it."""

    run: Callable[[], Any]
    locks: bool
    answer: asyncio.Future[Any]


class Calls:
    """Runs the calls of a connection one after another, each a little later than it was made.

    Waiting for the lock within SQLite would block the loop. So a call that needs it waits before.

    Args:
        loop: The world's loop; any other will do.
        node: The process that the connection belongs to.
        lock: That of the file.
        times: Returns how long a call takes until it runs, and from then until its answer.
        has_begun: Returns whether the connection is in a transaction.
        count: Called with "busy" when a call does not get the lock in time, and "interrupted".

    Attributes:
        busy_timeout: Seconds that a call waits for the lock.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        node: Node,
        lock: WriteLock,
        *,
        times: Callable[[], tuple[float, float]],
        has_begun: Callable[[], bool],
        count: Callable[[str], None],
    ) -> None:
        self.busy_timeout = 0.0
        self._loop = loop
        self._node = node
        self._lock = lock
        self._times, self._has_begun, self._count = times, has_begun, count
        self._calls: deque[_Call] = deque()

    def add(self, run: Callable[[], Any], *, locks: bool = False) -> asyncio.Future[Any]:
        """Run this after the calls before; it runs even if nobody waits for it any more."""
        call = _Call(run, locks, self._loop.create_future())
        self._calls.append(call)
        if len(self._calls) == 1:
            self._begin(call)
        return call.answer

    def interrupt(self) -> None:
        """Have the current call fail if it has not run."""
        if self._calls:
            self._calls[0].run = partial(self._fail, "interrupted", INTERRUPTED)

    def abandon(self) -> None:
        """Run nothing any more, and release the lock."""
        self._calls.clear()
        self._lock.release(self)

    def _begin(self, call: _Call) -> None:
        before, after = self._times()
        until = self._loop.time() + before + self.busy_timeout
        if before:
            self._later(before, self._attempt, call, after, until)
        else:
            self._attempt(call, after, until)

    def _attempt(self, call: _Call, after: float, until: float, tries: int = 0) -> None:
        """Run the call, or try again if it needs the lock and another connection has it."""
        if call.locks and not self._lock.acquire(self):
            if self._loop.time() < until:
                pause = RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)]
                self._later(pause, self._attempt, call, after, until, tries + 1)
                return
            call.run = partial(self._fail, "busy", LOCKED)
        result, error = None, None
        try:
            result = call.run()
        except Exception as raised:  # noqa: BLE001
            error = raised
        if not self._has_begun():
            self._lock.release(self)
        if after:
            self._later(after, self._answer, call, result, error)
        else:
            self._answer(call, result, error)

    def _answer(self, call: _Call, result: Any, error: Exception | None) -> None:
        if not call.answer.done():
            if error is None:
                call.answer.set_result(result)
            else:
                call.answer.set_exception(error)
        if self._calls:
            self._calls.popleft()
        if self._calls:
            self._begin(self._calls[0])

    def _fail(self, name: str, error: tuple[str, int]) -> None:
        self._count(name)
        raise sqlite_error(*error)

    def _later(self, seconds: float, step: Callable[..., None], *args: Any) -> None:
        """Take this step if the node lives then. A frozen one takes it when it goes on."""
        self._loop.call_later(seconds, step, *args, context=self._node.context)
