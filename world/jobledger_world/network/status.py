"""How a call ended."""

from typing import NamedTuple

import grpc

Metadata = tuple[tuple[str, str | bytes], ...]


class Status(NamedTuple):
    """How a call ended, with what the server sent after its last message."""

    code: grpc.StatusCode
    details: str = ""
    trailing: Metadata = ()


OK = Status(grpc.StatusCode.OK)


def unavailable(details: str) -> Status:
    """Return the status of a call whose connection is gone."""
    return Status(grpc.StatusCode.UNAVAILABLE, details)
