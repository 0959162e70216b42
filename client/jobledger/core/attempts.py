"""The attempts of a job, as immutable Python values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Self

from jobledger.core.conversion import from_timestamp
from jobledger.core.models import JobError
from jobledger.v1 import job_pb2


class AttemptOutcome(StrEnum):
    """How an attempt ended. Each member equals its name."""

    UNKNOWN = "UNKNOWN"
    """An outcome that this version of the client does not know."""
    COMPLETED = "COMPLETED"
    """The job is COMPLETED."""
    PARTIAL = "PARTIAL"
    """The job is PARTIAL."""
    FAILED = "FAILED"
    """The job is FAILED: by its worker, cancelled, or at the end of its `run_timeout`."""
    LEASE_EXPIRED = "LEASE_EXPIRED"
    """Its worker did not renew the lease."""
    STALLED = "STALLED"
    """It made no progress for longer than the job's `stall_timeout`."""
    RELEASED = "RELEASED"
    """Its worker released the job."""
    RETRIED = "RETRIED"
    """It failed with a retryable error, and the job waits for another attempt."""

    @classmethod
    def from_proto(cls, number: int) -> Self | None:
        """Convert a number of the enum `jobledger.v1.AttemptOutcome`; 0 is None."""
        return cls(_OUTCOMES.get(number, "UNKNOWN")) if number else None


_OUTCOMES: Final[Mapping[int, str]] = {
    number: name.removeprefix("ATTEMPT_OUTCOME_") for name, number in job_pb2.AttemptOutcome.items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt to run a job, by one worker."""

    number: int
    """1 for the first; the job's `attempt` while it ran."""
    worker_id: str
    """Who held the job; may be empty."""
    start_time: datetime
    """When it started, by the database server's clock."""
    end_time: datetime | None
    """When it ended; None while it runs."""
    outcome: AttemptOutcome | None
    """How it ended; None while it runs."""
    error: JobError | None
    """Why, without `details`; None while it runs, if it was released or if it completed the job."""
    progress: int
    """The percentage that it reached, 0 to 100."""

    @classmethod
    def from_proto(cls, message: job_pb2.Attempt) -> Self:
        """Convert the message."""
        return cls(
            number=message.number,
            worker_id=message.worker_id,
            start_time=from_timestamp(message.start_time),
            end_time=from_timestamp(message.end_time) if message.HasField("end_time") else None,
            outcome=AttemptOutcome.from_proto(message.outcome),
            error=JobError.from_proto(message.error) if message.HasField("error") else None,
            progress=message.progress,
        )
