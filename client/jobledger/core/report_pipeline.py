"""Reports that wait for their acknowledgements, over as many streams as it takes.

Pure: no network, no threads, no clock. A stream acknowledges in the order in which
it was written to, so the oldest report that was sent is the one that the next
acknowledgement belongs to. What a broken stream leaves without one goes first on the
next: reporting the same again is safe.
"""

import copy
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import grpc

from jobledger.core.retry import Backoff, is_transient
from jobledger.errors import ClientClosed, InternalError, JobledgerError, Unavailable
from jobledger.v1.worker_service_pb2 import ReportProgressRequest, ReportProgressResponse

MAX_WAITING: Final = 1000
"""Reports under way at once; the server reads no more of a stream either."""

LAST_CAP: Final = 2.0
"""Seconds between two tries to open a stream at most, as between two of the channel's."""


class Answer(Protocol):
    """What the sender of a report waits for: a future of asyncio or of a thread.

    One that is done before its acknowledgement came was given up by its sender.
    """

    def done(self) -> bool: ...

    def set_result(self, result: ReportProgressResponse, /) -> None: ...

    def set_exception(self, exception: JobledgerError, /) -> None: ...


@dataclass(slots=True, eq=False)
class _Waiting:
    request: ReportProgressRequest
    answer: Answer
    # How many more streams may break under it; None: any number.
    tries: int | None


class Pipeline:
    """The reports of one sender, oldest first.

    left: called for each report that waits no longer.
    """

    def __init__(self, left: Callable[[], object], backoff: Backoff | None = None) -> None:
        self._left = left
        self._backoff = Backoff(LAST_CAP) if backoff is None else backoff
        self._sent: deque[_Waiting] = deque()
        self._unsent: deque[_Waiting] = deque()
        self.failure: JobledgerError | None = None
        self.events = 0
        """Grows with each acknowledgement and with each end of a stream."""

    @property
    def idle(self) -> bool:
        """Whether nobody waits."""
        return all(each.answer.done() for queue in (self._sent, self._unsent) for each in queue)

    def put(self, request: ReportProgressRequest, answer: Answer, tries: int | None = None) -> None:
        self._unsent.append(_Waiting(request, answer, tries))

    def give_up(self, answer: Answer) -> None:
        """Forget a report whose sender no longer waits, unless it was sent.

        One that was sent keeps its place, for its acknowledgement will come.
        """
        for waiting in self._unsent:
            if waiting.answer is answer:
                self._unsent.remove(waiting)
                self._left()
                return

    def take(self) -> ReportProgressRequest | None:
        """Take what is to be written next; None: nothing at the moment."""
        if not self._unsent:
            return None
        waiting = self._unsent.popleft()
        self._sent.append(waiting)
        return waiting.request

    def acknowledge(self, response: ReportProgressResponse) -> None:
        """Hand an acknowledgement to its sender. Raises InternalError where it has none."""
        # An unreadable report is acknowledged without an id.
        if not self._sent or response.job.id not in {"", self._sent[0].request.job_id}:
            raise InternalError(
                "an acknowledgement of a report that was not sent", code=grpc.StatusCode.INTERNAL
            )
        self.events += 1
        self._backoff.reset()
        self.failure = None
        waiting = self._sent.popleft()
        self._left()
        if not waiting.answer.done():
            waiting.answer.set_result(response)

    def broken(self, failure: JobledgerError) -> float:
        """Take note that a stream has ended; return the pause before the next, in seconds.

        Those that wait get the failure where another stream would not mend it.
        """
        self.events += 1
        self.failure = failure
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()
        kept: deque[_Waiting] = deque()
        for waiting in self._unsent:
            if waiting.tries is not None:
                waiting.tries -= 1
            if waiting.answer.done():
                self._left()
            elif waiting.tries == 0 or not is_transient(failure):
                self._give_up(waiting, failure)
            else:
                kept.append(waiting)
        self._unsent = kept
        return self._backoff.pause(failure)

    def fail(self, failure: JobledgerError) -> None:
        """End the waiting of all."""
        for waiting in (*self._sent, *self._unsent):
            self._give_up(waiting, failure)
        self._sent.clear()
        self._unsent.clear()

    def _give_up(self, waiting: _Waiting, failure: JobledgerError) -> None:
        self._left()
        if not waiting.answer.done():
            # Each raises its own: a traceback grows with each raise.
            own = copy.copy(failure)
            own.__cause__ = failure.__cause__
            waiting.answer.set_exception(own)


def not_acknowledged(seconds: float, failure: JobledgerError | None) -> Unavailable:
    """Describe a report whose time is over, by what last befell its stream."""
    words = f"not acknowledged within {seconds:g} s"
    error = Unavailable(
        words if failure is None else f"{words}: {failure}", code=grpc.StatusCode.UNAVAILABLE
    )
    error.__cause__ = failure
    return error


def ended_early() -> JobledgerError:
    """Describe an OK before the sender has ended. Never the server's; a proxy's, perhaps."""
    return Unavailable("the stream of reports ended", code=grpc.StatusCode.UNAVAILABLE)


def fell_silent() -> JobledgerError:
    return Unavailable("the stream of reports fell silent", code=grpc.StatusCode.UNAVAILABLE)


def reports_closed() -> JobledgerError:
    return ClientClosed("closed while reports were under way", code=grpc.StatusCode.CANCELLED)
