"""Updates of a leased job: repeated until they are answered or the lease has expired."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from jobledger.core.retry import Backoff, is_transient
from jobledger.errors import (
    IllegalTransition,
    JobledgerError,
    JobNotFound,
    JobTerminal,
    LeaseLost,
)
from jobledger.worker.lease import Lease

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
