"""Watch tokens, as the service makes them."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from jobledger.core.conversion import from_timestamp
from jobledger.v1.job_service_pb2 import CreateWatchTokenResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchToken:
    """A token with which somebody reads a job, or some, and nothing else."""

    token: str = field(repr=False)
    """Printable ASCII, to be sent as a bearer token. Who has it can read the jobs."""
    expire_time: datetime
    """When it becomes invalid, by the server's clock."""

    @classmethod
    def from_proto(cls, message: CreateWatchTokenResponse) -> Self:
        """Convert the message."""
        return cls(token=message.token, expire_time=from_timestamp(message.expire_time))
