"""One direction of a connection."""

from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any

from jobledger_world.loop import WorldLoop


class Pipe:
    """Brings what one side sends to the other, later and in the same order, as TCP does.

    Args:
        loop: The loop.
        delay: Returns the seconds that the next message takes.
        context: Returns the context of the receiving side. While its node is frozen, nothing
            arrives, and nothing is lost.
    """

    def __init__(
        self, loop: WorldLoop, delay: Callable[[], float], context: Callable[[], Context]
    ) -> None:
        self._loop = loop
        self._delay = delay
        self._context = context
        self._under_way: deque[tuple[float, Callable[..., object], tuple[object, ...]]] = deque()
        self._timer: Any = None
        self._closed = False
        self.blocked = False

    def send(self, action: Callable[..., object], *args: object) -> None:
        """Have the other side do this once the message has arrived, if it does."""
        if not self._closed:
            self._under_way.append((self._loop.time() + self._delay(), action, args))
            self._wait()

    def block(self) -> None:
        """Let nothing arrive until `heal`. What is sent is kept, as TCP sends it again."""
        self.blocked = True
        self._stop_waiting()

    def heal(self) -> None:
        """Go on after `block`."""
        if self.blocked:
            self.blocked = False
            if self._under_way:
                _, action, args = self._under_way.popleft()
                self._under_way.appendleft((self._loop.time() + self._delay(), action, args))
            self._wait()

    def close(self) -> None:
        """Lose what is under way, and whatever is sent from now on."""
        self._closed = True
        self._under_way.clear()
        self._stop_waiting()

    def _wait(self) -> None:
        if self._timer is None and self._under_way and not self.blocked:
            at = max(self._under_way[0][0], self._loop.time())
            self._timer = self._loop.call_at(at, self._arrive, context=self._context())

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arrive(self) -> None:
        self._timer = None
        _, action, args = self._under_way.popleft()
        action(*args)
        self._wait()
