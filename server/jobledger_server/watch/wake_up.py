"""A wake-up event with a timeout, cheap enough for ten thousand waiters."""

import asyncio


class WakeUp:
    """An event for one waiter at a time.

    One future and one timer serve all its waits. When one change wakes ten thousand
    watches, an asyncio.Event inside asyncio.timeout costs as much as everything else
    in the delivery, and creating and cancelling a timer for each wait a tenth of it.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = 0.0
        # uvloop makes a timer that is due within half a millisecond a plain handle, without a time.
        self._timer: asyncio.Handle | None = None
        self._timer_due = 0.0

    def set(self) -> None:
        """Wake the waiter, or let the next wait return at once."""
        self._is_set = True
        if self._waiter is not None:
            _resolve(self._waiter)

    async def wait(self, max_wait: float) -> bool:
        """Wait until the event is set, for at most `max_wait` seconds, then clear it.

        Returns:
            Whether the event was set.
        """
        if not self._is_set:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            self._deadline = loop.time() + max_wait
            if self._timer is None or self._timer_due > self._deadline:
                self._set_timer(loop)
            try:
                await self._waiter
            finally:
                self._waiter = None
        was_set, self._is_set = self._is_set, False
        return was_set

    def close(self) -> None:
        """Cancel the timer. Nobody waits after this."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self.close()
        self._timer = loop.call_at(self._deadline, self._check_deadline, loop)
        self._timer_due = self._deadline

    def _check_deadline(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the wait if its deadline has passed; the timer may be from an earlier wait."""
        self._timer = None
        if self._waiter is None:
            return
        if loop.time() < self._deadline:
            self._set_timer(loop)
        else:
            _resolve(self._waiter)


def _resolve(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
