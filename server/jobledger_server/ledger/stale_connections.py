"""Kept connections that turned out to be dead."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from jobledger_server.store import StoreUnavailable

Result = TypeVar("Result")


async def retry_if_stale(attempt: Callable[[], Awaitable[Result]]) -> Result:
    """Make the attempt, and make it again where a dead connection is all that it met."""
    try:
        return await attempt()
    except StoreUnavailable as error:
        if not error.stale:
            raise
        return await attempt()
