"""A bell: wakes the one who waits, or lets it go after a while."""

import asyncio


class Bell:
    """What one watcher waits for.

    A future and a timer, and no more: with ten thousand watchers told of one change
    an asyncio.Event within an asyncio.timeout takes as long as the rest of the
    telling.
    """

    def __init__(self) -> None:
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake whoever waits, or else the next one at once."""
        self._rung = True
        if self._waiter is not None:
            _let_go(self._waiter)

    async def wait(self, patience: float) -> bool:
        """Wait until the bell has rung since it was last waited for; return whether it has.

        Gives up after `patience` seconds. For one waiter at a time.
        """
        if not self._rung:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(patience, _let_go, self._waiter)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
        rung, self._rung = self._rung, False
        return rung


def _let_go(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
