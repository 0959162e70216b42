"""Calls that change many jobs, in bounded steps. The two forms stand next to each other."""

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from jobledger.core.models import Job, JobView
from jobledger.core.retry import Backoff, is_unreachable, wait_at_most
from jobledger.errors import JobledgerError, LimitExceeded
from jobledger.v1.job_service_pb2 import (
    CancelJobsRequest,
    CancelJobsResponse,
    DeleteJobsRequest,
    DeleteJobsResponse,
    RerunJobsRequest,
    RerunJobsResponse,
)

PATIENCE: Final = 60.0
"""Seconds for which a step is tried again."""
LAST_CAP: Final = 5.0
"""Seconds between two tries at most, if the server does not say how long."""
MAX_STEP: Final = 1000
"""Jobs that one step can match."""
MAX_SAMPLE: Final = 10
"""Jobs in a sample."""


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What a call that changes many jobs has done, or would do with `validate_only`."""

    matched: int
    """How many jobs match."""
    changed: int
    """How many of them were changed: fewer if others changed them meanwhile; 0 with
    `validate_only`."""
    sample: tuple[Job, ...] = ()
    """The first of the changed jobs, of rerun_jobs() the first of the new ones, with
    `validate_only` the first that match: at most 10, in the view BASIC. Empty for deleted ones."""


OnProgress: TypeAlias = Callable[[BulkResult], object]

_Request = TypeVar("_Request", RerunJobsRequest, CancelJobsRequest, DeleteJobsRequest)
_Response: TypeAlias = RerunJobsResponse | CancelJobsResponse | DeleteJobsResponse


class Steps:
    """The steps of one call: what they have done, and whether to try one again. Pure."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._backoff = Backoff(LAST_CAP)
        self._result = BulkResult(0, 0)
        self._last_answer: float | None = None
        self.token = ""

    def accept(self, answer: _Response) -> BulkResult:
        """Add what a step has done; return the sum."""
        self._last_answer = self._clock()
        self._backoff.reset()
        self.token = answer.next_page_token
        before = self._result
        left = MAX_SAMPLE - len(before.sample)
        sample = (Job.from_proto(job, JobView.BASIC) for job in answer.sample[:left])
        self._result = BulkResult(
            before.matched + answer.matched,
            before.changed + answer.changed,
            (*before.sample, *sample),
        )
        return self._result

    def pause(self, error: JobledgerError) -> float:
        """Return the seconds after which a step that failed is tried again; else raise the error.

        The first step is not: until it is answered nothing was done, as by any other call.
        """
        passes = is_unreachable(error) or (
            isinstance(error, LimitExceeded) and error.retry_after is not None
        )
        last = self._last_answer
        if last is None or not passes or self._clock() > last + PATIENCE:
            raise error
        return self._backoff.pause(error)


async def run_steps_async(
    call: Callable[[_Request], Awaitable[_Response]],
    request: _Request,
    *,
    on_progress: OnProgress | None,
    closed: asyncio.Event,
) -> BulkResult:
    """Make one call for each step until all are done. Raises what `call` raises."""
    steps = Steps(asyncio.get_running_loop().time)
    while True:
        request.page_token = steps.token
        try:
            answer = await call(request)
        except JobledgerError as error:
            await wait_at_most(steps.pause(error), closed)
            continue
        result = steps.accept(answer)
        if on_progress is not None:
            returned = on_progress(result)
            if inspect.isawaitable(returned):
                await returned
        if not steps.token:
            return result


def run_steps(
    call: Callable[[_Request], _Response],
    request: _Request,
    *,
    on_progress: OnProgress | None,
    closed: threading.Event,
) -> BulkResult:
    """Make one call for each step until all are done. Raises what `call` raises."""
    steps = Steps(time.monotonic)
    while True:
        request.page_token = steps.token
        try:
            answer = call(request)
        except JobledgerError as error:
            closed.wait(steps.pause(error))
            continue
        result = steps.accept(answer)
        if on_progress is not None:
            on_progress(result)
        if not steps.token:
            return result
