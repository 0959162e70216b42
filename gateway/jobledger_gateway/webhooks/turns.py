"""Turns of attempts: how many are made at once, in all and of each owner.

Otherwise an owner with many webhooks, whose receivers are slow or whose jobs end fast, would take
the time of all others, and of the browsers that this process serves.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Lets attempts begin, of the owners in turn.

    Args:
        total: attempts at once.
        each: attempts of one owner at once.
    """

    def __init__(self, total: int, each: int) -> None:
        self._total = total
        self._each = each
        self._running: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def turn(self, owner: str) -> AsyncIterator[None]:
        """Wait for a turn of this owner, and have it during the block."""
        begun = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(begun)
        self._begin()
        try:
            await begun
            yield
        finally:
            if begun.cancelled():
                self._forget(owner, begun)
            else:
                self._running[owner] -= 1
                if not self._running[owner]:
                    del self._running[owner]
            self._begin()

    def _begin(self) -> None:
        """Let as many begin as may."""
        while (owner := self._next()) is not None:
            waiting = self._waiting.pop(owner)
            begun = waiting.popleft()
            if waiting:
                self._waiting[owner] = waiting  # behind the others
            if not begun.cancelled():
                begun.set_result(None)
                self._running[owner] += 1

    def _next(self) -> str | None:
        """Return the owner whose turn it is, or None."""
        if self._running.total() >= self._total:
            return None
        may = (owner for owner in self._waiting if self._running[owner] < self._each)
        return next(may, None)

    def _forget(self, owner: str, begun: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(owner)
        if waiting is not None and begun in waiting:
            waiting.remove(begun)
            if not waiting:
                del self._waiting[owner]
