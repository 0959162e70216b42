"""File descriptors: each connection takes one, and the database must not go without."""

import resource
from contextlib import suppress

RESERVED = 128
"""Kept free of connections: for the database, its files, the log and the metrics."""


def raise_descriptor_limit() -> None:
    """Raise the soft limit to the hard one, for this process and those that it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # where the system has a lower limit of its own
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connections_allowed(wanted: int) -> int:
    """Return how many connections may be open at once: as many as wanted, where possible."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(limit - RESERVED, limit // 2))
