"""What one watch knows: which message is news, and when to try again.

Pure: no network, no threads, no sleeping; the clock and the dice are parameters.
_follow.py does what is decided here.
"""

import random
import time
from collections.abc import Callable
from typing import Final

import grpc

from jobledger.v1.job_pb2 import JobStatus
from jobledger.v1.job_service_pb2 import WatchJobRequest, WatchJobResponse
from jobledger_client.errors import (
    DeadlineExceeded,
    JobledgerError,
    Unavailable,
)

TERMINAL_STATUSES: Final = frozenset(
    {
        JobStatus.JOB_STATUS_COMPLETED,
        JobStatus.JOB_STATUS_PARTIAL,
        JobStatus.JOB_STATUS_FAILED,
    }
)
"""The states in which a job never changes again."""

# Full jitter over a doubling cap (AWS Architecture Blog, "Exponential Backoff
# And Jitter"): after a restart thousands of watchers come back, not at once.
FIRST_CAP: Final = 0.1
LAST_CAP: Final = 5.0
# Three heartbeats missed.
SILENCE: Final = 45.0
# What an attempt gets even where the time to reconnect is nearly over.
ATTEMPT: Final = 5.0

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


class Watch:
    """One watch, over as many streams as it takes."""

    def __init__(
        self,
        request: WatchJobRequest,
        *,
        reconnect_timeout: float | None = None,
        timeout: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._job_id = request.job_id
        self._user_id = request.user_id
        self._seen = request.after_version
        self._reconnect_timeout = reconnect_timeout
        self._timeout = timeout
        self._clock = clock
        self._uniform = uniform
        self._started = clock()
        self._broken_since: float | None = self._started
        self._failures = 0
        self.ended = False

    def request(self) -> WatchJobRequest:
        """Ask for the next stream: go on after what was seen."""
        return WatchJobRequest(job_id=self._job_id, user_id=self._user_id, after_version=self._seen)

    def accept(self, response: WatchJobResponse) -> bool:
        """Take note of a message and tell whether it is news."""
        version = response.job.version
        self._broken_since = None
        news = version > self._seen and not response.heartbeat
        if news or response.heartbeat:
            # Not after the snapshot that greets each stream: a server that
            # breaks right after it would be called ten times a second.
            self._failures = 0
        if response.job.status in TERMINAL_STATUSES:
            # Whatever its version: a server restored from a backup may be
            # behind what was seen, and nothing comes after this.
            self.ended = True
            return True
        if news:
            self._seen = version
        return news

    def broken(self, failure: JobledgerError) -> float:
        """How long to pause before the next stream, in seconds; or raises `failure`."""
        if not is_transient(failure):
            raise failure
        now = self._clock()
        cap = min(FIRST_CAP * 2 ** min(self._failures, 10), LAST_CAP)
        # Added, not the greater of the two: where all watchers are told the
        # same delay, the jitter still spreads them.
        pause = (failure.retry_after or 0.0) + self._uniform(0.0, cap)
        self._failures += 1
        if self._broken_since is None:
            self._broken_since = now
        if self._timeout is not None and now + pause >= self._started + self._timeout:
            raise DeadlineExceeded(
                f"job {self._job_id} did not end within {self._timeout:g} s",
                code=grpc.StatusCode.DEADLINE_EXCEEDED,
            ) from failure
        if (
            self._reconnect_timeout is not None
            and now + pause >= self._broken_since + self._reconnect_timeout
        ):
            raise failure
        return pause

    def patience(self) -> float:
        """How long the current stream may be silent from now on, in seconds."""
        now = self._clock()
        patience = SILENCE
        if self._broken_since is not None and self._reconnect_timeout is not None:
            left = self._broken_since + self._reconnect_timeout - now
            patience = min(patience, max(left, ATTEMPT))
        if self._timeout is not None:
            patience = min(patience, max(self._started + self._timeout - now, 0.0))
        return patience


def is_transient(failure: JobledgerError) -> bool:
    """Whether another stream may succeed.

    INTERNAL with a reason is a bug of the server, without one a stream that was
    reset on the way (RST_STREAM).
    """
    if failure.code is grpc.StatusCode.INTERNAL:
        return not failure.reason
    return failure.code in _RETRIED


def ended_early() -> JobledgerError:
    """Describe an OK without the terminal state. Never the server's; a proxy's, perhaps."""
    return Unavailable("the stream ended before the job did", code=grpc.StatusCode.UNAVAILABLE)


def fell_silent() -> JobledgerError:
    return Unavailable(
        "the stream fell silent: not even heartbeats", code=grpc.StatusCode.UNAVAILABLE
    )


def client_closed() -> JobledgerError:
    return JobledgerError("the client was closed during the watch", code=grpc.StatusCode.CANCELLED)
