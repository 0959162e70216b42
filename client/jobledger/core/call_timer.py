"""Ends the blocking reads of a client that get no message in time, in one thread for all."""

import threading
import time
from collections.abc import Callable
from typing import Final

NAME: Final = "jobledger-watchdog"


class CallTimer:
    """The thread of a client's watchdogs. It runs while the client has a watch."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._armed: dict[Watchdog, float] = {}
        self._watches = 0
        self._wakes_at = 0.0
        self._thread: threading.Thread | None = None

    def watchdog(self) -> "Watchdog":
        """Return a watchdog for a watch, which has to be stopped."""
        with self._changed:
            self._watches += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=NAME, daemon=True)
                self._thread.start()
        return Watchdog(self)

    def arm(self, watchdog: "Watchdog", seconds: float) -> None:
        with self._changed:
            self._armed[watchdog] = deadline = time.monotonic() + seconds
            if deadline < self._wakes_at:
                self._changed.notify()

    def disarm(self, watchdog: "Watchdog") -> None:
        with self._changed:
            self._armed.pop(watchdog, None)

    def leave(self, watchdog: "Watchdog") -> None:
        with self._changed:
            self._armed.pop(watchdog, None)
            self._watches -= 1
            if not self._watches:
                self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while self._watches:
                now = time.monotonic()
                # Copies: a watch may be collected as garbage meanwhile, and leave.
                for watchdog, deadline in self._armed.copy().items():
                    if deadline <= now:
                        self._armed.pop(watchdog, None)
                        watchdog.fire()
                self._wakes_at = min(self._armed.copy().values(), default=float("inf"))
                pause = self._wakes_at - now
                self._changed.wait(None if pause == float("inf") else pause)
            self._thread = None


class Watchdog:
    """Cancels a call whose next message does not come in time.

    A blocking read has no timeout of its own, so a thread has to end it. Armed only while the
    reader waits: a caller may spend any time on a message.
    """

    def __init__(self, timer: CallTimer) -> None:
        self._timer = timer
        self._cancel: Callable[[], object] | None = None
        self.fired = False

    def arm(self, cancel: Callable[[], object], seconds: float) -> None:
        self._cancel, self.fired = cancel, False
        self._timer.arm(self, seconds)

    def disarm(self) -> None:
        self._timer.disarm(self)

    def stop(self) -> None:
        self._timer.leave(self)

    def fire(self) -> None:
        self.fired = True
        if self._cancel is not None:
            self._cancel()
