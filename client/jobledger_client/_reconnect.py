"""When a broken watch is tried again, and when it is given up.

Pure: no network, no threads, no sleeping; the clock and the dice are parameters.
_follow.py does what is decided here; what a message means is for _watch.py and
_watch_jobs.py to say.
"""

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Generic, TypeVar

import grpc

from jobledger_client.errors import DeadlineExceeded, JobledgerError, Unavailable

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

# Full jitter over a doubling cap (AWS Architecture Blog, "Exponential Backoff
# And Jitter"): after a restart thousands of watchers come back, not at once.
FIRST_CAP: Final = 0.1
LAST_CAP: Final = 5.0
# Three heartbeats missed.
SILENCE: Final = 45.0
# What an attempt gets even where the time to reconnect is nearly over.
ATTEMPT: Final = 5.0
# A stream that was moved sooner was not old: were that no failure, a server that
# sends everybody away would be called ten times a second.
OLD: Final = 1.0

_RETRIED: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        # Not the caller's own: that one never gets here.
        grpc.StatusCode.CANCELLED,
        # A watch has no deadline: something on the way limits streams.
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)


class Why(Enum):
    """Why another stream is opened."""

    LOST = auto()
    """Something broke."""
    MOVED = auto()
    """The server ended an old stream, so that the next may go to another server."""
    GAP = auto()
    """The server no longer knows where the watch was: it begins anew."""


@dataclass(frozen=True, slots=True)
class Pause:
    """What to do before the next stream."""

    seconds: float
    why: Why = Why.LOST


class Reconnecting(ABC, Generic[RequestT, ResponseT]):
    """One watch, over as many streams as it takes.

    timeout: seconds that all of it may take; reconnect_timeout: to go on trying
    after a break; connect_timeout: the same before the first message of all. What
    is None has no limit, but for connect_timeout, which then is as the other.
    """

    def __init__(
        self,
        *,
        reconnect_timeout: float | None = None,
        connect_timeout: float | None = None,
        timeout: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._reconnect_timeout = reconnect_timeout
        # Of the break that there is now; the first is that nothing was heard yet.
        self._limit = reconnect_timeout if connect_timeout is None else connect_timeout
        self._timeout = timeout
        self._clock = clock
        self._uniform = uniform
        self._started = self._opened = clock()
        self._broken_since: float | None = self._started
        self._failures = 0
        self.ended = False

    @abstractmethod
    def request(self) -> RequestT:
        """Ask for the next stream: go on after what was seen."""

    @abstractmethod
    def accept(self, response: ResponseT) -> bool:
        """Take note of a message and tell whether the caller gets it."""

    @abstractmethod
    def name(self) -> str:
        """Name what is waited for: `job 1234`."""

    def is_gap(self, failure: JobledgerError) -> bool:  # noqa: ARG002
        """Whether the watch can go on, but not where it was."""
        return False

    def opens(self) -> None:
        """Take note of the moment: a stream is opened."""
        self._opened = self._clock()

    def heard(self, *, progress: bool) -> None:
        """Take note of a message.

        progress: it is more than what greets each stream. A server that breaks
        right after its greeting would be called ten times a second.
        """
        self._broken_since = None
        self._limit = self._reconnect_timeout
        if progress:
            self._failures = 0

    def broken(self, failure: JobledgerError) -> Pause:
        """How long to pause before the next stream, and why; or raises `failure`."""
        now = self._clock()
        why = self._why(failure)
        if why is Why.MOVED and now - self._opened >= OLD:
            self._failures = 0
        cap = min(FIRST_CAP * 2 ** min(self._failures, 10), LAST_CAP)
        # Added, not the greater of the two: where all watchers are told the
        # same delay, the jitter still spreads them.
        pause = (failure.retry_after or 0.0) + self._uniform(0.0, cap)
        self._failures += 1
        if self._timeout is not None and now + pause >= self._started + self._timeout:
            raise DeadlineExceeded(
                f"{self.name()} did not end within {self._timeout:g} s",
                code=grpc.StatusCode.DEADLINE_EXCEEDED,
            ) from failure
        if why is not Why.LOST:
            # The service is there. From now on it may be away.
            self.heard(progress=False)
            self._broken_since = now
            return Pause(pause, why)
        if self._broken_since is None:
            self._broken_since = now
        if self._limit is not None and now + pause >= self._broken_since + self._limit:
            raise failure
        return Pause(pause)

    def patience(self) -> float:
        """How long the current stream may be silent from now on, in seconds."""
        now = self._clock()
        patience = SILENCE
        if self._broken_since is not None and self._limit is not None:
            patience = min(patience, max(self._broken_since + self._limit - now, ATTEMPT))
        if self._timeout is not None:
            patience = min(patience, max(self._started + self._timeout - now, 0.0))
        return patience

    def _why(self, failure: JobledgerError) -> Why:
        if self.is_gap(failure):
            return Why.GAP
        if not is_transient(failure):
            raise failure
        # A server that drains gives a delay: it takes a moment until another is
        # there. A stream on which nothing came was not there to be moved.
        moved = failure.code is grpc.StatusCode.UNAVAILABLE and failure.retry_after == 0.0
        return Why.MOVED if moved and self._broken_since is None else Why.LOST


def is_transient(failure: JobledgerError) -> bool:
    """Whether another stream may succeed.

    INTERNAL with a reason is a bug of the server, without one a stream that was
    reset on the way (RST_STREAM).
    """
    if failure.code is grpc.StatusCode.INTERNAL:
        return not failure.reason
    return failure.code in _RETRIED


def ended_early() -> JobledgerError:
    """Describe an OK before the end. Never the server's; a proxy's, perhaps."""
    return Unavailable("the stream ended before the watch did", code=grpc.StatusCode.UNAVAILABLE)


def fell_silent() -> JobledgerError:
    return Unavailable(
        "the stream fell silent: not even heartbeats", code=grpc.StatusCode.UNAVAILABLE
    )


def client_closed() -> JobledgerError:
    return JobledgerError("the client was closed during the watch", code=grpc.StatusCode.CANCELLED)
