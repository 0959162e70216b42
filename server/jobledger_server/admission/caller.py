"""The caller of a call, as limits and fair queueing distinguish callers.

A client without an identity can give itself any name, so callers are distinguished by
their connections first, and by the names that they give themselves second.
"""

from contextvars import ContextVar
from typing import NamedTuple


class Caller(NamedTuple):
    """Makes a call.

    `origin` is the caller's identity, or its connection if it has no identity. `name` is
    the owner or worker that its request names, because behind a proxy thousands of callers
    share a connection. It is empty if there is an identity.
    """

    origin: str
    name: str = ""


SERVICE = Caller("")
"""The service itself, for instance the reaper and retention. No limit applies to it."""

CALLER: ContextVar[Caller] = ContextVar("caller", default=SERVICE)
"""The caller of the call that the current task serves."""
