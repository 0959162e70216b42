"""File descriptors: connections must leave some to the database."""

import os
import resource
import sys
from contextlib import suppress

RESERVED = 128
"""Descriptors that connections leave to the database, its files, the log and the metrics."""


def open_standard_files() -> None:
    """Open those of standard input, output and error that are closed, as the null device.

    Otherwise another file gets the number, and uvloop aborts the process when it closes that.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def raise_descriptor_limit() -> None:
    """Raise the soft limit to the hard limit, for this process and its children."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # the system has a lower limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connections_allowed(maximum: int) -> int:
    """Return how many connections may be open: `maximum`, or fewer if descriptors are few."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return maximum
    return min(maximum, max(limit - RESERVED, limit // 2))
