"""Webhooks, as immutable Python values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from jobledger.core.conversion import from_timestamp
from jobledger.core.models import JobStatus
from jobledger.v1 import webhook_service_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A subscription to the ends of jobs, which are posted to a URL, and how it does."""

    id: str
    """Its id."""
    user_id: str
    """The owner of the jobs; empty for the jobs of all owners."""
    url: str
    """Where it posts to."""
    job_types: tuple[str, ...]
    """Only jobs of these types; empty for all."""
    labels: Mapping[str, str]
    """Only jobs with all of these labels."""
    transitions: tuple[JobStatus, ...]
    """Only transitions to these states; empty for those to a terminal state."""
    create_time: datetime
    """When it was created, by the database server's clock."""
    disable_time: datetime | None
    """When it was disabled; None unless it is."""
    disable_reason: str
    """Why; empty unless it is."""
    success_time: datetime | None
    """When the last delivery succeeded; None if none has."""
    failure_time: datetime | None
    """When the last delivery failed; None if none has."""
    last_failure: str
    """Why it failed."""
    pending: int
    """How many deliveries wait for their next attempt."""
    given_up: int
    """How many deliveries were given up."""
    creator: str
    """The identity that created, updated or enabled it last; empty without an access file."""
    previous_secret_expire_time: datetime | None
    """Until when deliveries are signed with the secret before the last rotation, too."""

    @classmethod
    def from_proto(cls, message: webhook_service_pb2.Webhook) -> Self:
        """Convert the message."""
        has = message.HasField
        return cls(
            id=message.id,
            user_id=message.user_id,
            url=message.url,
            job_types=tuple(message.job_types),
            labels=dict(message.labels),
            transitions=tuple(map(JobStatus.from_proto, message.transitions)),
            create_time=from_timestamp(message.create_time),
            disable_time=from_timestamp(message.disable_time) if has("disable_time") else None,
            disable_reason=message.disable_reason,
            success_time=from_timestamp(message.success_time) if has("success_time") else None,
            failure_time=from_timestamp(message.failure_time) if has("failure_time") else None,
            last_failure=message.last_failure,
            pending=message.pending,
            given_up=message.given_up,
            creator=message.creator,
            previous_secret_expire_time=from_timestamp(message.previous_secret_expire_time)
            if has("previous_secret_expire_time")
            else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWebhook:
    """A webhook with a new secret: it was just created, or its secret was rotated."""

    webhook: Webhook
    """The webhook."""
    secret: str
    """The key that its deliveries are signed with, `whsec_...`. It cannot be read again."""
