"""How a job ends: what a handler returns, and what becomes of what it raises."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from jobledger.v1.asset_pb2 import Asset
from jobledger.v1.job_pb2 import JobError, JobStatus
from jobledger_client._json import JsonObject, to_struct

MAX_REASON: Final = 63
MAX_MESSAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class Completed:
    """Everything was done. `result` is the outcome, `assets` are linked with it."""

    result: JsonObject | None = None
    assets: Iterable[Asset] = ()


@dataclass(frozen=True, slots=True)
class Partial:
    """Some of it was done: `result` and `assets` tell what, `message` what is missing.

    reason: goes with a message; UPPER_SNAKE_CASE, at most 63 characters.
    """

    result: JsonObject | None = None
    message: str = ""
    reason: str = ""
    details: JsonObject | None = field(default=None, kw_only=True)
    assets: Iterable[Asset] = field(default=(), kw_only=True)


@dataclass(frozen=True, slots=True)
class Failed:
    """It was not done, and `message` tells people why.

    reason: why, for programs; UPPER_SNAKE_CASE, at most 63 characters.
    details: more facts.
    result: what is known nevertheless.
    """

    message: str
    reason: str = "FAILED"
    details: JsonObject | None = field(default=None, kw_only=True)
    result: JsonObject | None = field(default=None, kw_only=True)
    assets: Iterable[Asset] = field(default=(), kw_only=True)


Outcome: TypeAlias = Completed | Partial | Failed

STATUSES: Final[dict[type[Outcome], "JobStatus.ValueType"]] = {
    Completed: JobStatus.JOB_STATUS_COMPLETED,
    Partial: JobStatus.JOB_STATUS_PARTIAL,
    Failed: JobStatus.JOB_STATUS_FAILED,
}


def error_of(outcome: Outcome) -> JobError | None:
    """Build what goes into Job.error. ValueError where the details are not JSON."""
    match outcome:
        case Completed() | Partial(message="", reason="", details=None):
            return None
        case Partial() | Failed():
            return JobError(
                reason=outcome.reason,
                message=clean_message(outcome.message) or outcome.reason or "no reason was given",
                details=to_struct(outcome.details, "details"),
            )


def failure(error: BaseException) -> Failed:
    """Turn what a handler raised into an end: its class is the reason, its words the message."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    try:
        words = str(error)
    except Exception:  # noqa: BLE001
        words = ""
    return Failed(clean_message(words) or type(error).__name__, reason_of(type(error).__name__))


def reason_of(name: str) -> str:
    """Spell a class's name as a reason: JSONDecodeError is JSON_DECODE_ERROR."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).upper()
    plain = re.sub(r"[^A-Z0-9]+", "_", words).strip("_").lstrip("0123456789_")
    return plain[:MAX_REASON].rstrip("_") or "ERROR"


def clean_message(text: str, limit: int = MAX_MESSAGE) -> str:
    """Make words fit to be stored: no U+0000, no half surrogates, not too long."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}").strip()
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
