"""What becomes of what a handler raises: the job's error, and whether it is retryable."""

import dataclasses
import re
from typing import Final, TypeAlias

from jobledger.core.conversion import Seconds
from jobledger.core.options import seconds_of
from jobledger.worker.outcomes import SERVICE_REASONS, Failed, clean_message

MAX_REASON: Final = 63

RetryOn: TypeAlias = tuple[type[Exception], ...]


class RetryLater(Exception):
    """A handler raises this where a later attempt may succeed.

    If the job has an attempt left, it waits and is claimed again. If not, it is FAILED. Its error
    has the message, and the reason RETRY_LATER: the exception's class, so a subclass has its own.

    Args:
        message: why, for people; cut after 4096 characters.
        after: seconds, or a timedelta, until the next attempt, at most 365 days. Default: the
            pause that the job's retry policy says.

    Raises:
        TypeError: `after` has the wrong type.
        ValueError: `after` is no time span.
    """

    after: float | None = None
    """Seconds until the next attempt; None: as the job's retry policy says."""

    def __init__(self, message: str = "", *, after: Seconds | None = None) -> None:
        super().__init__(message)
        self.after = seconds_of(after, "after")


class RaisedElsewhere(Exception):
    """The cause of an exception that comes from another process. Its text is the traceback.

    Args:
        text: the traceback.
        failed: what becomes of the job. The exception itself may have lost a part on its way.
    """

    def __init__(self, text: str, failed: Failed) -> None:
        super().__init__(text)
        self.failed = failed


def failure(error: BaseException, retry_on: RetryOn = ()) -> Failed:
    """Convert what a handler raised: its class is the reason, its text the message.

    Args:
        error: the exception.
        retry_on: the exceptions after which another attempt may succeed, besides RetryLater.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    failed = _failed(error)
    if not _is_retryable(error, (RetryLater, *retry_on)):
        return failed
    after = error.after if isinstance(error, RetryLater) else None
    return dataclasses.replace(failed, retryable=True, retry_after=after)


def _is_retryable(error: BaseException, kinds: RetryOn) -> bool:
    """Whether it is of these kinds; a group is if each of its exceptions is."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(kinds)[1] is None
    return isinstance(error, kinds)


def _failed(error: BaseException) -> Failed:
    if isinstance(error.__cause__, RaisedElsewhere):
        return error.__cause__.failed
    try:
        text = str(error)
    except Exception:  # noqa: BLE001
        text = ""
    return Failed(clean_message(text) or type(error).__name__, reason_of(type(error).__name__))


def reason_of(name: str) -> str:
    """Spell a class's name as a reason: JSONDecodeError is JSON_DECODE_ERROR.

    One that only the service gives gets an end of its own: Stalled is STALLED_ERROR.
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).upper()
    plain = re.sub(r"[^A-Z0-9]+", "_", words).strip("_").lstrip("0123456789_")
    reason = plain[:MAX_REASON].rstrip("_") or "ERROR"
    return f"{reason}_ERROR" if reason in SERVICE_REASONS else reason
