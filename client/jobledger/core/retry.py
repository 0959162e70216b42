"""Which calls may be tried again, and how long to pause before."""

import asyncio
import contextlib
import random
from typing import Final

import grpc

from jobledger.errors import ClientClosed, JobledgerError, MessageTooLarge

FIRST_CAP: Final = 0.1

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
    """Whether a retry of the same call may succeed."""
    return error.code not in _PERMANENT and not isinstance(error, MessageTooLarge | ClientClosed)


def is_unreachable(error: JobledgerError) -> bool:
    """Whether the service, or its database, did not answer at all."""
    return error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def wait_at_most(seconds: float | None, event: asyncio.Event) -> None:
    """Wait until the event is set, or so many seconds have passed; None: any time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class Backoff:
    """Pauses between tries: full jitter over a cap that doubles, as in reconnecting.py."""

    def __init__(self, last_cap: float) -> None:
        self._last_cap = last_cap
        self._failures = 0

    def pause(self, error: JobledgerError) -> float:
        cap = min(FIRST_CAP * 2 ** min(self._failures, 10), self._last_cap)
        self._failures += 1
        jitter = random.uniform(cap / 2, cap)  # noqa: S311
        return min(error.retry_after or 0.0, self._last_cap) + jitter

    def reset(self) -> None:
        self._failures = 0
