"""Updates of a leased job: repeated until they are answered or the lease has expired."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from jobledger.core.retry import Backoff, is_transient, is_unreachable
from jobledger.errors import (
    IllegalTransition,
    JobledgerError,
    JobNotFound,
    JobTerminal,
    LeaseLost,
)
from jobledger.worker.lease import Lease

RELEASE: Final = 5.0
"""Seconds for which a release is tried while the worker stops."""

_Answer = TypeVar("_Answer")

GONE: Final = (LeaseLost, JobTerminal, JobNotFound, IllegalTransition)
"""The job is no longer this worker's: it has another attempt, is terminal or deleted."""


async def persist(
    send: Callable[[], Awaitable[_Answer]],
    lease: Lease,
    until: float | Callable[[JobledgerError], float],
) -> _Answer:
    """Send an update until it is answered: at least once, and again not beyond `until`.

    Args:
        send: sends it once; raises where no answer comes.
        lease: of the job.
        until: a moment of the lease's clock, or a function that returns it after a failed try.

    Raises:
        JobledgerError: a refusal, or the error of the last try.
    """
    backoff = Backoff(lease.longest_pause)
    while True:
        try:
            return await send()
        except JobledgerError as error:
            if not is_transient(error):
                raise
            pause = backoff.pause(error)
            if lease.clock() + pause >= (until(error) if callable(until) else until):
                raise
        await asyncio.sleep(pause)


async def release(
    send: Callable[[], Awaitable[None]], lease: Lease, stopping: Callable[[], bool]
) -> None:
    """Release a job: tried as any last call, but not for long while the worker stops.

    Args:
        send: as of `persist`.
        lease: of the job.
        stopping: whether the worker stops.

    Raises:
        JobledgerError: a refusal, or the error of the last try.
    """
    began = lease.clock()

    def until(error: JobledgerError) -> float:
        limit = began + RELEASE if stopping() else math.inf
        return min(limit, last_try(error, lease, stopping=stopping()))

    await persist(send, lease, until)


def last_try(error: JobledgerError, lease: Lease, *, stopping: bool) -> float:
    """Return until when the last call is tried: in an outage for as long as the worker runs.

    The service extends the leases that expire in an outage, so the job may still be this worker's
    after it; the fence decides.
    """
    return math.inf if is_unreachable(error) and not stopping else lease.deadline
