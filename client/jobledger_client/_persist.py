"""Calls that a worker repeats until they are answered or it is too late."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import grpc

from jobledger_client._lease import Lease
from jobledger_client.errors import (
    DeadlineExceeded,
    IllegalTransition,
    JobledgerError,
    JobNotFound,
    JobTerminal,
    LeaseLost,
)

_Answer = TypeVar("_Answer")

FIRST_CAP: Final = 0.1

GONE: Final = (LeaseLost, JobTerminal, JobNotFound, IllegalTransition)
"""The job is no longer this worker's: it has another holder, has ended or is deleted."""

_PERMANENT: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)


def is_transient(error: JobledgerError) -> bool:
    """Whether the same call may be answered otherwise in a while.

    What is too big stays too big, though its code is that of a busy server.
    """
    if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return "bytes in a message" not in error.metadata.get("limit", "") and (
            "larger than max" not in error.message
        )
    return error.code not in _PERMANENT


def is_unreachable(error: JobledgerError) -> bool:
    """Whether the service, or its database, did not answer at all."""
    return error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Backoff:
    """Pauses between tries: full jitter over a cap that doubles, as in _reconnect.py."""

    def __init__(
        self,
        last_cap: float,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._last_cap = last_cap
        self._uniform = uniform
        self._failures = 0

    def pause(self, error: JobledgerError) -> float:
        cap = min(FIRST_CAP * 2 ** min(self._failures, 10), self._last_cap)
        self._failures += 1
        return min(error.retry_after or 0.0, self._last_cap) + self._uniform(cap / 2, cap)

    def reset(self) -> None:
        self._failures = 0


async def attempt(call: Callable[[], Awaitable[_Answer]], seconds: float) -> _Answer:
    """Make one call, which may take so long. Raises JobledgerError."""
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
    """Make a call until it is answered; at least once, and not beyond `until`.

    until: a moment of the lease's clock, or what returns one when a try has failed.

    Raises JobledgerError: a refusal, or what the last try met.
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
