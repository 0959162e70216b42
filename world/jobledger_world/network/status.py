"""How a call begins, and how it ended."""

from dataclasses import dataclass
from typing import NamedTuple

import grpc

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Headers:
    """What the server gets before the first message. `timeout` is in seconds."""

    method: str
    metadata: Metadata
    timeout: float | None


class Status(NamedTuple):
    """How a call ended, with what the server sent after its last message."""

    code: grpc.StatusCode
    details: str = ""
    trailing: Metadata = ()


OK = Status(grpc.StatusCode.OK)


def unavailable(details: str) -> Status:
    """Return the status of a call whose connection is gone."""
    return Status(grpc.StatusCode.UNAVAILABLE, details)
