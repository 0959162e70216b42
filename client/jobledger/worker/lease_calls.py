"""Calls about a leased job: repeated until they are answered or the lease has expired."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import grpc

from jobledger.core.retry import Backoff, is_transient
from jobledger.errors import (
    DeadlineExceeded,
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


async def attempt(call: Callable[[], Awaitable[_Answer]], seconds: float) -> _Answer:
    """Make one call, within a timeout. Raises JobledgerError."""
    try:
        async with asyncio.timeout(seconds):
            return await call()
    except TimeoutError:
        raise DeadlineExceeded(
            f"no answer within {seconds:g} s", code=grpc.StatusCode.DEADLINE_EXCEEDED
        ) from None


async def persist(
    call: Callable[[], Awaitable[_Answer]],
    lease: Lease,
    until: float | Callable[[JobledgerError], float],
) -> _Answer:
    """Make a call until it is answered: at least once, and not beyond `until`.

    Args:
        call: makes it.
        lease: limits each try.
        until: a moment of the lease's clock, or a function that returns it after a failed try.

    Raises:
        JobledgerError: a refusal, or the error of the last try.
    """
    backoff = Backoff(lease.longest_pause)
    while True:
        try:
            return await attempt(call, lease.call_timeout)
        except JobledgerError as error:
            if not is_transient(error):
                raise
            pause = backoff.pause(error)
            if lease.clock() + pause >= (until(error) if callable(until) else until):
                raise
        await asyncio.sleep(pause)
