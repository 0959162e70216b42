"""How a job finishes, or is released: what a handler returns."""

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, cast

from jobledger.core.conversion import JsonObject, Seconds, to_struct
from jobledger.core.models import Asset, JobError, JobStatus
from jobledger.core.options import seconds_of
from jobledger.core.typed_values import Typed, is_typed, to_json

MAX_MESSAGE: Final = 4096
MAX_LOGGED: Final = 200

SERVICE_REASONS: Final = frozenset(
    {
        *("CANCELLED", "CHILDREN_FAILED", "LEASE_EXPIRED"),
        *("QUEUE_EXPIRED", "RUN_EXPIRED", "STALLED"),
    }
)
"""Reasons that only the service gives."""

_REASON: Final = re.compile(r"[A-Z][A-Z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Completed:
    """Everything was done.

    Args:
        result: the output: a JSON object of at most 256 KiB, or a dataclass, msgspec.Struct or
            pydantic model, which becomes one.
        assets: at most 1000, linked in the same transaction; any iterable.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: JSON cannot hold a part of `result`.
    """

    result: JsonObject | Typed | None = None
    assets: Sequence[Asset] = ()

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True)
class Partial:
    """Some of it was done.

    Args:
        result: what was done; as that of Completed.
        message: what was not, for people; cut after 4096 characters.
        reason: the same for programs: UPPER_SNAKE_CASE, at most 63 characters, none of those that
            the service gives itself, such as LEASE_EXPIRED.
        details: more facts: a JSON object of at most 256 KiB.
        assets: at most 1000, linked in the same transaction; any iterable.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: JSON cannot hold a part of `result` or `details`, or the reason is not allowed.
    """

    result: JsonObject | Typed | None = None
    message: str = ""
    reason: str = ""
    details: JsonObject | None = field(default=None, kw_only=True)
    assets: Sequence[Asset] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True)
class Failed:
    """It was not done.

    Args:
        message: why, for people; cut after 4096 characters.
        reason: why, for programs: UPPER_SNAKE_CASE, at most 63 characters, none of those that the
            service gives itself, such as LEASE_EXPIRED.
        details: more facts: a JSON object of at most 256 KiB.
        result: what is known in spite of the failure: a JSON object of at most 256 KiB.
        assets: at most 1000, linked in the same transaction; any iterable.
        retryable: whether another attempt may succeed. If the job has one left, it waits and is
            claimed again; `result` and `details` are then dropped. If not, it is FAILED.
        retry_after: seconds, or a timedelta, until the next attempt, at most 365 days. Default:
            the pause that the job's retry policy says.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: JSON cannot hold a part of `result` or `details`, or the reason is not allowed,
            or `retry_after` is no time span or without `retryable`.
    """

    message: str
    reason: str = "FAILED"
    details: JsonObject | None = field(default=None, kw_only=True)
    result: JsonObject | None = field(default=None, kw_only=True)
    assets: Sequence[Asset] = field(default=(), kw_only=True)
    retryable: bool = field(default=False, kw_only=True)
    retry_after: Seconds | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check(self)
        if not isinstance(self.retryable, bool):
            raise TypeError(f"retryable: {self.retryable!r:.100} is not a bool")
        if self.retry_after is not None and not self.retryable:
            raise ValueError("retry_after: only a retryable failure has one")
        object.__setattr__(self, "retry_after", seconds_of(self.retry_after, "retry_after"))


@dataclass(frozen=True, slots=True)
class Release:
    """Another worker should do it: no attempt is used up.

    The same worker may be the one that claims it next. A job that is released again and again soon
    after its start waits longer each time, as its retry policy says. For an error, use RetryLater
    or a retryable Failed. A job whose cancellation was requested is FAILED / CANCELLED instead.

    Args:
        after: seconds, or a timedelta, until it can be claimed again, at most 365 days.
            Default: at once.

    Raises:
        TypeError: `after` has the wrong type.
        ValueError: `after` is no time span.
    """

    after: Seconds | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "after", seconds_of(self.after, "after"))


Finish: TypeAlias = Completed | Partial | Failed
Outcome: TypeAlias = Finish | Release

STATUSES: Final[dict[type[Finish], JobStatus]] = {
    Completed: JobStatus.COMPLETED,
    Partial: JobStatus.PARTIAL,
    Failed: JobStatus.FAILED,
}


def _check(outcome: Finish) -> None:
    """Refuse at once what cannot be sent, so that the traceback names the handler's line."""
    if is_typed(type(outcome.result)):
        object.__setattr__(outcome, "result", to_json(outcome.result, "result"))
    to_struct(json_result(outcome), "result")
    if not isinstance(outcome, Completed):
        to_struct(outcome.details, "details")
        for name in ("message", "reason"):
            value = getattr(outcome, name)
            if not isinstance(value, str):
                raise TypeError(f"{name}: {value!r:.100} is not a str")
        if outcome.reason in SERVICE_REASONS:
            raise ValueError(f"reason: only the service gives {outcome.reason}; choose another")
        if outcome.reason and not _REASON.fullmatch(outcome.reason):
            raise ValueError(
                f"reason: {outcome.reason!r:.100} is not UPPER_SNAKE_CASE of at most 63 characters"
            )
    if isinstance(outcome.assets, str | bytes | Mapping):
        raise TypeError(f"assets: {type(outcome.assets).__name__} is not a list of Asset")
    assets = tuple(outcome.assets)
    for index, asset in enumerate(assets):
        if not isinstance(asset, Asset):
            raise TypeError(f"assets[{index}]: {type(asset).__name__} is not an Asset")
        try:
            asset.to_new_proto()
        except (TypeError, ValueError) as error:
            raise type(error)(f"assets[{index}]: {error}") from None
    object.__setattr__(outcome, "assets", assets)


def outcome_of(returned: object) -> Outcome | None:
    """Convert what a handler returned.

    Raises:
        TypeError: it is no outcome, mapping or object with typed fields.
        ValueError: JSON cannot hold a part of it.
    """
    match returned:
        case None | Completed() | Partial() | Failed() | Release():
            return returned
        case Mapping():
            return Completed(returned)
    if is_typed(type(returned)):
        return Completed(cast("Typed", returned))
    if inspect.iscoroutine(returned):
        returned.close()
    raise TypeError(
        f"the handler returned {type(returned).__name__}; it can return Completed, Partial, "
        "Failed, Release, a mapping, a dataclass, a msgspec.Struct, a pydantic model or None"
    )


def json_result(outcome: Finish) -> JsonObject | None:
    """Return the result: as `_check` left it, a JSON object."""
    return cast("JsonObject | None", outcome.result)


def error_of(outcome: Finish) -> JobError | None:
    """Build what goes into Job.error."""
    match outcome:
        case Completed() | Partial(message="", reason="", details=None):
            return None
        case Partial() | Failed():
            return JobError(
                clean_message(outcome.message) or outcome.reason or "no reason was given",
                reason=outcome.reason,
                details=outcome.details,
            )


def summary(outcome: Finish) -> str:
    """Say in one line of a log how a job finished: `Failed (DISK_FULL: no space left)`."""
    name = type(outcome).__name__
    if isinstance(outcome, Failed) and outcome.retryable:
        name = "Failed, retryable"
    if (error := error_of(outcome)) is None:
        return name
    message = " ".join(error.message.split())
    return f"{name} ({error.reason and f'{error.reason}: '}{message:.{MAX_LOGGED}})"


def clean_message(text: str, limit: int = MAX_MESSAGE) -> str:
    """Make a text fit to be stored: no U+0000, no lone surrogates, not too long."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}").strip()
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limit else text[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
