"""What each call, or watch, can be given besides its arguments: timeouts, metadata, callbacks."""

import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Final, TypeAlias, TypedDict

from jobledger.core.conversion import Seconds, to_seconds
from jobledger.errors import JobledgerError


class Default(Enum):
    """The type of DEFAULT."""

    DEFAULT = "the client's own"


DEFAULT: Final = Default.DEFAULT
"""Stands for what the client was made with."""

Timeout: TypeAlias = Seconds | Default | None
Metadata: TypeAlias = Mapping[str, str | bytes] | Iterable[tuple[str, str | bytes]]
OnError: TypeAlias = Callable[[JobledgerError], object]
OnReconnect: TypeAlias = Callable[[], object]
Headers: TypeAlias = tuple[tuple[str, str | bytes], ...]

_KEY: Final = re.compile(r"[a-z0-9._-]+")
_PRINTABLE: Final = re.compile(r"[ -~]*")


class CallOptions(TypedDict, total=False):
    """Keyword arguments that every call accepts."""

    timeout: Timeout
    """Seconds, or a timedelta, that the call may take, retries and the token function included;
    None: any time."""
    metadata: Metadata
    """Sent with the call, besides the client's own."""


class WatchOptions(TypedDict, total=False):
    """Keyword arguments that every call that watches accepts."""

    connect_timeout: Timeout
    """Seconds until the first message; None: no limit. Default: the client's."""
    reconnect_timeout: Seconds | None
    """Seconds from a break until the watch gives up. Default: no limit."""
    on_disconnect: OnError | None
    """Called with the error when the connection breaks. With AsyncClient it may be a coroutine
    function."""
    on_reconnect: OnReconnect | None
    """Called when the watch goes on after a break. With AsyncClient it may be a coroutine
    function."""
    metadata: Metadata
    """Sent with each stream, besides the client's own."""


def seconds_of(timeout: Seconds | None, name: str) -> float | None:
    """Return a timeout in seconds; None if there is no limit. Raises as `to_seconds`."""
    return None if timeout is None else to_seconds(timeout, name)


def check_names(given: Mapping[str, object], known: type) -> None:
    """Raise TypeError, as Python does, if an argument is none of a TypedDict's keys."""
    for name in given.keys() - known.__annotations__.keys():
        raise TypeError(f"{name}: there is no such argument")


def headers_of(metadata: Metadata) -> Headers:
    """Return metadata as gRPC takes it.

    Raises:
        ValueError: no header can hold it. gRPC would report that as an error of the server.
    """
    headers = tuple(metadata.items() if isinstance(metadata, Mapping) else metadata)
    for key, value in headers:
        text = value if isinstance(value, str) else value.decode("latin-1")
        if not _KEY.fullmatch(key):
            raise ValueError(
                f"metadata: {key!r}: a key has lower-case letters, digits, '.', '_', '-'"
            )
        if not key.endswith("-bin") and not _PRINTABLE.fullmatch(text):
            raise ValueError(
                f"metadata: {key!r}: a value is printable ASCII unless the key is -bin"
            )
    return headers
