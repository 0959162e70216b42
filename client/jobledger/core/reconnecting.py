"""When a broken watch reconnects, and when it gives up.

Pure: no network, no threads, no sleeping; the clock and the random numbers are parameters.
streams.py does what is decided here; job_watch.py and feed_watch.py know what a message means.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Generic, TypeVar

import grpc

from jobledger.errors import DeadlineExceeded, JobledgerError, Unauthenticated, Unavailable

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
EventT = TypeVar("EventT")

# Full jitter over a doubling cap (AWS Architecture Blog, "Exponential Backoff
# And Jitter"): after a restart thousands of watchers reconnect, but not at once.
FIRST_CAP: Final = 0.1
LAST_CAP: Final = 5.0
# Three heartbeats missed.
MAX_SILENCE: Final = 45.0
# The least time of an attempt, even if the time to reconnect is nearly over.
ATTEMPT: Final = 5.0
# A stream that the server ended sooner had not reached its maximum age. That counts as a failure:
# otherwise a server that ends every stream would be called ten times a second.
OLD: Final = 1.0

# How long a token may be refused after one was accepted, if a function returns it. Keys and tokens
# are renewed by several programs, none of them at the same moment.
TOKEN_REFUSED: Final = 60.0

_RETRIED: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        # Not a cancellation by the caller, which is never handled here.
        grpc.StatusCode.CANCELLED,
        # A watch has no deadline, so a proxy limits its streams.
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)


class Why(Enum):
    """Why another stream is opened."""

    LOST = auto()
    """The stream broke."""
    MOVED = auto()
    """The server ended the stream, by its age or to stop; the next one may go to another server."""
    GAP = auto()
    """The server refused the resume token; the next stream starts with a listing."""


@dataclass(frozen=True, slots=True)
class Pause:
    """What to do before the next stream."""

    seconds: float
    why: Why = Why.LOST


class Reconnecting(ABC, Generic[RequestT, ResponseT, EventT]):
    """One watch, over any number of streams.

    Args:
        connect_timeout: seconds until the first message; None: no limit.
        reconnect_timeout: seconds to try after a break; None: no limit.
        timeout: seconds for the whole watch; None: no limit.
        renews_token: whether a function returns the token, perhaps another one for each stream.
        clock: monotonic, in seconds.
        uniform: draws a random number from an interval.
    """

    def __init__(
        self,
        *,
        connect_timeout: float | None = None,
        reconnect_timeout: float | None = None,
        timeout: float | None = None,
        renews_token: bool = False,
        clock: Callable[[], float],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._reconnect_timeout = reconnect_timeout
        # The limit of the present break; the watch begins with one.
        self._limit = connect_timeout
        self._timeout = timeout
        self._renews_token = renews_token
        self._accepted = False
        self._clock = clock
        self._uniform = uniform
        self._started = self._opened = clock()
        self._broken_since: float | None = self._started
        self._failures = 0
        self.ended = False

    @abstractmethod
    def request(self) -> RequestT:
        """Build the request for the next stream, which resumes after what was seen."""

    @abstractmethod
    def accept(self, response: ResponseT) -> Sequence[EventT]:
        """Record a message; return what the caller gets, if anything.

        The caller has all of it before the next message is read, or another stream opened.
        """

    @abstractmethod
    def name(self) -> str:
        """Name what is watched: `job 1234`."""

    def is_gap(self, failure: JobledgerError) -> bool:  # noqa: ARG002
        """Whether the watch can go on, but not from its resume token."""
        return False

    def opens(self) -> None:
        """Record that a stream is being opened."""
        self._opened = self._clock()

    def received(self, *, progress: bool) -> None:
        """Record a message.

        Args:
            progress: whether it is more than what starts each stream. Otherwise a server that
                fails right after it would be called ten times a second.
        """
        self._accepted = True
        self._broken_since = None
        self._limit = self._reconnect_timeout
        if progress:
            self._failures = 0

    def broken(self, failure: JobledgerError) -> Pause:
        """Return how long to pause before the next stream, and why.

        Raises:
            JobledgerError: the watch gives up: `failure`, or DeadlineExceeded after `timeout`.
        """
        now = self._clock()
        why = self._why(failure)
        if why is Why.MOVED and now - self._opened >= OLD:
            self._failures = 0
        cap = min(FIRST_CAP * 2 ** min(self._failures, 10), LAST_CAP)
        # Added, not the greater of the two: if the server gives all watchers the same delay, the
        # jitter still spreads them.
        pause = (failure.retry_after or 0.0) + self._uniform(0.0, cap)
        self._failures += 1
        if self._timeout is not None and now + pause >= self._started + self._timeout:
            # A stream that was merely quiet is no cause.
            cause = "" if self._broken_since is None else f": {failure}"
            raise DeadlineExceeded(
                f"{self.name()} did not finish within {self._timeout:g} s{cause}",
                code=grpc.StatusCode.DEADLINE_EXCEEDED,
            ) from failure
        if why is not Why.LOST:
            # The service answered. From now on it may be unavailable.
            self.received(progress=False)
            self._broken_since = now
            return Pause(pause, why)
        if self._broken_since is None:
            self._broken_since = now
        if self._limit is not None and now + pause >= self._broken_since + self._limit:
            raise failure
        return Pause(pause)

    def max_silence(self) -> float:
        """Return how many seconds the current stream may be silent from now on."""
        now = self._clock()
        most = MAX_SILENCE
        if self._broken_since is not None and self._limit is not None:
            most = min(most, max(self._broken_since + self._limit - now, ATTEMPT))
        if self._timeout is not None:
            most = min(most, max(self._started + self._timeout - now, 0.0))
        return most

    def _awaits_token(self, failure: JobledgerError) -> bool:
        """Whether a later token may be accepted, as an earlier one was."""
        if failure.code is not grpc.StatusCode.UNAUTHENTICATED or not self._accepted:
            return False
        if not self._renews_token:
            raise refused_later(failure)
        since = self._broken_since
        return since is None or self._clock() - since < TOKEN_REFUSED

    def _why(self, failure: JobledgerError) -> Why:
        if self.is_gap(failure):
            return Why.GAP
        if not (may_reconnect(failure) or self._awaits_token(failure)):
            raise failure
        # A server that refuses new streams gives a delay. A stream without any message was neither
        # at its maximum age nor open when the server began to stop.
        moved = failure.code is grpc.StatusCode.UNAVAILABLE and failure.retry_after == 0.0
        return Why.MOVED if moved and self._broken_since is None else Why.LOST


def refused_later(failure: JobledgerError) -> JobledgerError:
    """Return the error where a fixed token was accepted before: it says what to do."""
    message = f"{failure}; it was accepted before: give the client a function as `token`"
    return Unauthenticated(message, code=failure.code, reason=failure.reason)


def may_reconnect(failure: JobledgerError) -> bool:
    """Whether a watch may go on over another stream.

    INTERNAL with a reason is a bug of the server, without one a stream that was
    reset by a proxy or the network (RST_STREAM). UNKNOWN is an answer that gRPC cannot make sense
    of, as a proxy's own page.
    """
    if failure.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
        return not failure.reason
    return failure.code in _RETRIED


def ended_early() -> JobledgerError:
    """Describe a stream that ended with OK before the watch did, as a proxy may do."""
    return Unavailable("the stream ended before the watch did", code=grpc.StatusCode.UNAVAILABLE)


def timed_out(target: str) -> JobledgerError:
    """Describe a stream without messages, not even heartbeats."""
    return Unavailable(
        f"no message from {target}, not even heartbeats", code=grpc.StatusCode.UNAVAILABLE
    )
