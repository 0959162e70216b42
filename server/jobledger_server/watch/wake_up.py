"""A bell: wakes the one who waits, or lets it go after a while."""

import asyncio


class Bell:
    """What one watcher waits for.

    A future, and one timer for all its waits: with ten thousand watchers told of one
    change an asyncio.Event within an asyncio.timeout takes as long as the rest of
    the telling, and a timer that is made and cancelled for each a tenth of it.
    """

    def __init__(self) -> None:
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

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
            self._due = loop.time() + patience
            if self._timer is None or self._timer.when() > self._due:
                self._set_timer(loop)
            try:
                await self._waiter
            finally:
                self._waiter = None
        rung, self._rung = self._rung, False
        return rung

    def silence(self) -> None:
        """Let go of the timer: nobody will wait any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self.silence()
        self._timer = loop.call_at(self._due, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """See whether somebody has waited too long; the timer may be of an earlier wait."""
        self._timer = None
        if self._waiter is None:
            return
        if loop.time() < self._due:
            self._set_timer(loop)
        else:
            _let_go(self._waiter)


def _let_go(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
