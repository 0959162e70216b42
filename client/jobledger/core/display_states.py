"""The state of a job as people see it: on the command line, and on the page."""

from enum import StrEnum


class DisplayState(StrEnum):
    """What a job does now, in one word for people. Each member equals its text.

    Programs go by JobStatus, which says what may follow.
    """

    UNKNOWN = "UNKNOWN"
    """Its status is one that this version of the client does not know."""
    SCHEDULED = "SCHEDULED"
    """QUEUED, and not due yet."""
    QUEUED = "QUEUED"
    """It waits for its first worker."""
    RUNNING = "RUNNING"
    """A worker holds it, or it is a group whose jobs have begun."""
    WAITING_FOR_RETRY = "WAITING FOR RETRY"
    """It was started, and waits for its next attempt."""
    CANCELLING = "CANCELLING"
    """Its worker was asked to stop."""
    COMPLETED = "COMPLETED"
    """Everything was done."""
    PARTIAL = "PARTIAL"
    """Some of it was done."""
    FAILED = "FAILED"
    """It was not done."""
    CANCELLED = "CANCELLED"
    """FAILED, because somebody asked to cancel it."""
