"""Retries for pooled connections that turn out to be dead."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from jobledger_server.store import StoreUnavailable

Result = TypeVar("Result")


async def retry_if_stale(attempt: Callable[[], Awaitable[Result]]) -> Result:
    """Return the result of `attempt`; call it a second time if its connection was stale."""
    try:
        return await attempt()
    except StoreUnavailable as error:
        if not error.stale:
            raise
        return await attempt()
