"""What each call can be given besides its arguments: how long it may take, extra metadata."""

import math
from collections.abc import Iterable, Mapping
from datetime import timedelta
from enum import Enum
from typing import Final, TypeAlias, TypedDict

from jobledger.core.conversion import Seconds


class Default(Enum):
    """The type of DEFAULT."""

    DEFAULT = "the client's own"


DEFAULT: Final = Default.DEFAULT
"""Stands for what the client was made with."""

Timeout: TypeAlias = Seconds | Default | None
Metadata: TypeAlias = Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]]
Headers: TypeAlias = tuple[tuple[str, str | bytes], ...]

# Longer than any program runs; what gRPC's clock can still add to the present time.
_LONGEST: Final = 10 * 365 * 86400.0


class CallOptions(TypedDict, total=False):
    """Keyword arguments that every call accepts."""

    timeout: Timeout
    """Seconds, or a timedelta, that the call may take, retries included; None: any time."""
    metadata: Metadata
    """Sent with the call, besides the client's own."""


def seconds_of(timeout: Seconds | None, name: str) -> float | None:
    """Return a timeout in seconds; None if there is no limit.

    Raises:
        TypeError: it is neither a number nor a timedelta nor None.
        ValueError: it is negative or no number.
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float | timedelta):
        raise TypeError(f"{name}: {type(timeout).__name__} is neither seconds nor a timedelta")
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"{name}: {timeout} is not a time span")
    return None if seconds > _LONGEST else seconds


def headers_of(metadata: Metadata) -> Headers:
    """Return metadata as gRPC takes it.

    Raises:
        TypeError: a key is no `str`, or a value neither `str` nor `bytes`.
    """
    pairs = tuple(metadata.items() if isinstance(metadata, Mapping) else metadata)
    for key, value in pairs:
        if not isinstance(key, str) or not isinstance(value, str | bytes):
            raise TypeError(f"metadata: {key!r}: keys are str, values str or bytes")
    return pairs
