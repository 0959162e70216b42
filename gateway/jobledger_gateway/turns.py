"""Turns for work that takes long: of all callers alike, however much one of them has waiting."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeVar

Result = TypeVar("Result")


class Caller(NamedTuple):
    """Who a request comes from: an address, and what it says of itself there."""

    address: str
    credentials: str


class Turns:
    """Runs functions in threads. Addresses take turns, and so do the callers of an address.

    A caller has one turn at a time: while its work runs, other turns are free for others.

    Args:
        slots: how many functions run at once.
    """

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._running: set[Caller] = set()
        # By address and credentials, each in the order of their turns.
        self._waiting: dict[str, dict[str, deque[asyncio.Future[None]]]] = {}

    async def run(self, caller: Caller, work: Callable[[], Result]) -> Result:
        """Return the result of `work`, which runs when it is the caller's turn."""
        await self._turn(caller)
        running = asyncio.get_running_loop().run_in_executor(None, work)

        def ended(future: asyncio.Future[Result]) -> None:
            if not future.cancelled():
                future.exception()  # else asyncio would log it if nobody waits any more
            self._release(caller)

        running.add_done_callback(ended)
        # A thread cannot be stopped: its turn lasts until it has ended.
        return await asyncio.shield(running)

    async def _turn(self, caller: Caller) -> None:
        waiter = asyncio.get_running_loop().create_future()
        callers = self._waiting.setdefault(caller.address, {})
        callers.setdefault(caller.credentials, deque()).append(waiter)
        self._grant()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._remove(caller, waiter)
            else:
                self._release(caller)  # it was granted at the same moment
            raise

    def _release(self, caller: Caller) -> None:
        self._running.discard(caller)
        self._free += 1
        self._grant()

    def _grant(self) -> None:
        """Give the free turns to those who are next."""
        while self._free and (caller := self._next()) is not None:
            waiter = self._waiting[caller.address][caller.credentials][0]
            self._remove(caller, waiter)
            if not waiter.cancelled():
                waiter.set_result(None)
                self._running.add(caller)
                self._free -= 1

    def _next(self) -> Caller | None:
        for address, callers in self._waiting.items():
            for credentials in callers:
                caller = Caller(address, credentials)
                if caller not in self._running:
                    return caller
        return None

    def _remove(self, caller: Caller, waiter: "asyncio.Future[None]") -> None:
        """Remove a waiter, if it still waits; its caller and address come last from now on."""
        callers = self._waiting.pop(caller.address, {})
        queue = callers.pop(caller.credentials, deque())
        if waiter in queue:
            queue.remove(waiter)
        if queue:
            callers[caller.credentials] = queue
        if callers:
            self._waiting[caller.address] = callers
