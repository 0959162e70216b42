"""Errors as gRPC codes and details. Nothing internal is sent: a bug is logged under an id."""

import logging
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final, NamedTuple

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2 as codes
from google.rpc import status_pb2
from google.rpc.error_details_pb2 import (
    BadRequest,
    ErrorInfo,
    PreconditionFailure,
    QuotaFailure,
    ResourceInfo,
    RetryInfo,
)

from jobledger.v1 import error_reason_pb2 as reasons
from jobledger.v1 import worker_service_pb2
from jobledger.v1.error_reason_pb2 import ErrorReason
from jobledger_server.admission.endings import (
    Ending,
    FeedRestarted,
    PermissionsChanged,
    ShuttingDown,
    StreamTooOld,
)
from jobledger_server.domain.errors import (
    AssetNameTaken,
    ConcurrencyLimitReached,
    DomainError,
    GroupSealed,
    IllegalTransition,
    IsAGroup,
    JobInGroup,
    JobNotDue,
    JobNotFound,
    JobStarted,
    JobTerminal,
    LeaseLost,
    LimitExceeded,
    NotAGroup,
    OutputGap,
    Paused,
    PhaseUnknown,
    RequestIdReused,
    UniqueKeyTaken,
    VersionMismatch,
    WebhookNotFound,
    WebhookNotHeld,
)
from jobledger_server.rpc.access.permissions import AccessDenied, Unauthenticated
from jobledger_server.rpc.validation import InvalidRequest
from jobledger_server.store import FeedCompacted, StoreUnavailable
from jobledger_server.watch.feed_reader import ForeignCursor

DOMAIN = "jobledger"

DEFAULT_RETRY_SECONDS = 1
"""How long a caller is asked to wait before a retry that may succeed."""

MAX_RETRY_SECONDS = 365 * 24 * 3600
"""What a longer delay is sent as: a quota may be any rate, and not every delay fits a Duration."""

VIOLATIONS_BYTES = 1500
"""Bytes of violations in a status at most. A status contains them three times, in base64 and
percent-encoded, and clients cut trailers at 8 KiB."""

FOREIGN = "is of another database, or this one was restored from a backup: start without a token"

MAX_NAMED_CHARACTERS = 200
"""Characters of what a denied caller named, in its status and in the audit log."""

NO_FACTS: Mapping[str, str] = {}

_WHY_ENDED: Mapping[type[Ending], str] = {
    ShuttingDown: "this server is shutting down",
    StreamTooOld: "the stream reached its maximum age: open it again",
    PermissionsChanged: "the caller's permissions have changed: call again",
    FeedRestarted: "the feed starts over: open the stream again",
}

log = logging.getLogger("jobledger.rpc")


class Refusal(NamedTuple):
    """How an error is reported to a caller.

    Attributes:
        code: The gRPC code.
        reason: The reason, for programs.
        message: The message, for people.
        facts: The metadata of its ErrorInfo.
        details: The details of its status, besides the ErrorInfo.
    """

    code: int
    reason: ErrorReason.ValueType
    message: str
    facts: Mapping[str, str] = NO_FACTS
    details: Sequence[Message] = ()


def status_of(error: Exception) -> status_pb2.Status:
    """Return the status of an error. A bug is logged under an id, and the status has the id."""
    refusal = _refusal_of(error)
    info = ErrorInfo(reason=_name(refusal.reason), domain=DOMAIN, metadata=refusal.facts)
    status = status_pb2.Status(code=refusal.code, message=refusal.message)
    for detail in (info, *refusal.details):
        status.details.add().Pack(detail)
    return status


def reason_of(error: Exception) -> str:
    """Return the reason of an error, as callers get it."""
    refusal = _known(error)
    return _name(reasons.ERROR_REASON_INTERNAL if refusal is None else refusal.reason)


def update_error(error: Exception) -> worker_service_pb2.UpdateError:
    """Return the error of one update of a stream."""
    refusal = _refusal_of(error)
    return worker_service_pb2.UpdateError(
        code=refusal.code, reason=refusal.reason, message=refusal.message, metadata=refusal.facts
    )


def _refusal_of(error: Exception) -> Refusal:
    refusal = _known(error)
    if refusal is None:
        correlation_id = uuid.uuid4().hex
        log.error("internal_error", exc_info=error, extra={"correlation_id": correlation_id})
        refusal = Refusal(
            codes.INTERNAL,
            reasons.ERROR_REASON_INTERNAL,
            f"internal error; see {correlation_id} in the server's log",
            {"correlation_id": correlation_id},
        )
    return refusal


def _known(error: Exception) -> Refusal | None:
    """Return what is said of an error, or None for a bug."""
    match error:
        case InvalidRequest():
            return _invalid(error)
        case PhaseUnknown(job_id):
            message = f"job {job_id} is in a phase that only newer servers know"
            return _unavailable(message, {"job_id": job_id})
        case DomainError():
            return _domain(error)
        case Unauthenticated():
            cause = "this call needs a valid identity"
            return Refusal(codes.UNAUTHENTICATED, reasons.ERROR_REASON_UNAUTHENTICATED, cause)
        case AccessDenied(key, value):
            return Refusal(
                codes.PERMISSION_DENIED,
                reasons.ERROR_REASON_ACCESS_DENIED,
                f"the caller's rule in the access file lacks {printed(value)} in `{key}`",
                {"missing": key, "value": printed(value)},
            )
        case Ending():
            facts = {"resume_token": error.resume_token} if error.resume_token else NO_FACTS
            return _unavailable(_WHY_ENDED[type(error)], facts, error.retry_after)
        case StoreUnavailable(kind="disk_full" | "read_only"):
            return _unavailable("the database does not accept writes at the moment")
        case StoreUnavailable(kind="timeout"):
            return _unavailable("the database did not answer in time")
        case StoreUnavailable():
            return _unavailable("the database does not answer")
        case FeedCompacted():
            return Refusal(
                codes.OUT_OF_RANGE,
                reasons.ERROR_REASON_RESUME_TOKEN_EXPIRED,
                "the resume token has expired, deletions after it are lost: start without a token",
            )
        case ForeignCursor():
            return _invalid(InvalidRequest([("resume_token", FOREIGN)], token=True))
        case _:
            return None


def _domain(error: DomainError) -> Refusal | None:  # noqa: C901, PLR0911, PLR0912
    match error:
        case JobNotFound(job_id):
            return Refusal(
                codes.NOT_FOUND,
                reasons.ERROR_REASON_JOB_NOT_FOUND,
                f"this user has no job {job_id!r}",
                {"job_id": job_id},
                [ResourceInfo(resource_type="jobledger.v1.Job", resource_name=job_id)],
            )
        case IllegalTransition(job_id, current, target, allowed):
            return _precondition(
                reasons.ERROR_REASON_ILLEGAL_TRANSITION,
                f"job {job_id} is {current.value}{_why_illegal(current.value, target, allowed)}",
                job_id=job_id,
                current=current.value,
                target=target,
                allowed=",".join(allowed),
            )
        case JobTerminal(job_id, current, target):
            return _precondition(
                reasons.ERROR_REASON_JOB_TERMINAL,
                f"job {job_id} is {current.value}, a terminal state",
                job_id=job_id,
                current=current.value,
                target=target,
                allowed="",
            )
        case JobStarted(job_id, current):
            return _precondition(
                reasons.ERROR_REASON_JOB_STARTED,
                f"job {job_id} is {current.value}: it cannot be changed once it was started",
                job_id=job_id,
                current=current.value,
            )
        case JobNotDue(job_id, schedule_time):
            time = Timestamp()
            time.FromMicroseconds(schedule_time)
            return _precondition(
                reasons.ERROR_REASON_JOB_NOT_DUE,
                f"job {job_id} is scheduled for {time.ToJsonString()}",
                job_id=job_id,
                schedule_time=time.ToJsonString(),
            )
        case IsAGroup(job_id):
            message = f"job {job_id} is a group: no worker runs it, and it has no turn"
            return _precondition(reasons.ERROR_REASON_IS_A_GROUP, message, job_id=job_id)
        case NotAGroup(job_id):
            message = f"job {job_id} is no group"
            return _precondition(reasons.ERROR_REASON_NOT_A_GROUP, message, job_id=job_id)
        case GroupSealed(job_id):
            message = f"the group {job_id} is sealed: no job can be added to it"
            return _precondition(reasons.ERROR_REASON_GROUP_SEALED, message, job_id=job_id)
        case JobInGroup(job_id, group_id):
            return _precondition(
                reasons.ERROR_REASON_JOB_IN_GROUP,
                f"job {job_id} belongs to the group {group_id}: delete the group",
                job_id=job_id,
                group_id=group_id,
            )
        case LeaseLost(job_id, attempt):
            return Refusal(
                codes.ABORTED,
                reasons.ERROR_REASON_LEASE_LOST,
                f"job {job_id} is at attempt {attempt}, not the caller's: stop working on it",
                {"job_id": job_id, "attempt": str(attempt)},
            )
        case VersionMismatch(job_id, version):
            return Refusal(
                codes.ABORTED,
                reasons.ERROR_REASON_VERSION_MISMATCH,
                f"job {job_id} is at version {version}, not the expected one",
                {"job_id": job_id, "version": str(version)},
            )
        case OutputGap(job_id, stream, number):
            return Refusal(
                codes.ABORTED,
                reasons.ERROR_REASON_OUTPUT_GAP,
                f"append {number} of the attempt to {stream!r} is not stored: send it first",
                {"job_id": job_id, "stream": stream, "number": str(number)},
            )
        case RequestIdReused(request_id, kind, existing_id, index, how):
            return Refusal(
                codes.ALREADY_EXISTS,
                reasons.ERROR_REASON_REQUEST_ID_REUSED,
                f"the request id {request_id!r} was used before {how}",
                {"request_id": request_id} | ({} if index is None else {"index": str(index)}),
                [ResourceInfo(resource_type=f"jobledger.v1.{kind}", resource_name=existing_id)],
            )
        case UniqueKeyTaken(unique_key, job_id, index):
            return Refusal(
                codes.ALREADY_EXISTS,
                reasons.ERROR_REASON_UNIQUE_KEY_TAKEN,
                f"job {job_id} has the unique key {printed(unique_key)!r} and is not terminal",
                {"unique_key": unique_key, "job_id": job_id}
                | ({} if index is None else {"index": str(index)}),
                [ResourceInfo(resource_type="jobledger.v1.Job", resource_name=job_id)],
            )
        case Paused(job_id, job_type, key):
            facts = {"concurrency_key": key} if key else {"job_type": job_type}
            paused = f"the concurrency key {printed(key)!r}" if key else f"the type {job_type}"
            message = f"job {job_id} is not started: {paused} is paused"
            return _precondition(reasons.ERROR_REASON_PAUSED, message, job_id=job_id, **facts)
        case ConcurrencyLimitReached(job_id, key, most):
            message = f"job {job_id} is not started: {most} jobs with the concurrency key"
            message += f" {printed(key)!r} are held, as many as may be"
            violation = QuotaFailure.Violation(subject="concurrency_key", description=message)
            return Refusal(
                codes.RESOURCE_EXHAUSTED,
                reasons.ERROR_REASON_CONCURRENCY_LIMIT,
                message,
                {"job_id": job_id, "concurrency_key": key, "max_running": str(most)},
                [QuotaFailure(violations=[violation]), _retry(DEFAULT_RETRY_SECONDS)],
            )
        case AssetNameTaken(job_id, name, asset_id):
            return Refusal(
                codes.ALREADY_EXISTS,
                reasons.ERROR_REASON_ASSET_NAME_TAKEN,
                f"job {job_id} has another asset named {printed(name)!r}: choose another name",
                {"job_id": job_id, "name": name},
                [ResourceInfo(resource_type="jobledger.v1.Asset", resource_name=asset_id)],
            )
        case WebhookNotFound(webhook_id):
            return Refusal(
                codes.NOT_FOUND,
                reasons.ERROR_REASON_WEBHOOK_NOT_FOUND,
                f"there is no webhook {webhook_id!r} for this user",
                {"webhook_id": webhook_id},
                [ResourceInfo(resource_type="jobledger.v1.Webhook", resource_name=webhook_id)],
            )
        case WebhookNotHeld(webhook_id):
            return Refusal(
                codes.ABORTED,
                reasons.ERROR_REASON_WEBHOOK_NOT_HELD,
                f"this deliverer does not hold the webhook {webhook_id!r}: stop delivering it",
                {"webhook_id": webhook_id},
            )
        case LimitExceeded():
            return _limit_exceeded(error)
        case _:
            return None


def _invalid(error: InvalidRequest) -> Refusal:
    named: list[tuple[str, str]] = []
    room = VIOLATIONS_BYTES
    for name, description in error.violations:
        room -= _bytes_in_message(f"{name} {description}; ")
        if room < 0 and named:
            break
        named.append((name, description))
    more = error.more + len(error.violations) - len(named)
    message = "; ".join(f"{name} {description}" for name, description in named)
    found = [BadRequest.FieldViolation(field=name, description=text) for name, text in named]
    return Refusal(
        codes.INVALID_ARGUMENT,
        reasons.ERROR_REASON_INVALID_TOKEN if error.token else reasons.ERROR_REASON_INVALID_FIELD,
        message + (f"; and {more} more" if more else ""),
        {"more": str(more)} if more else NO_FACTS,
        [BadRequest(field_violations=found)],
    )


def _bytes_in_message(text: str) -> int:
    """Return the bytes of a text in `grpc-message`, which percent-encodes all but ASCII."""
    return sum(1 if 0x20 <= byte < 0x7F else 3 for byte in text.encode())  # noqa: PLR2004


def _limit_exceeded(error: LimitExceeded) -> Refusal:
    limit, scope = error.limit, error.scope
    value = str(int(error.value) if error.value == int(error.value) else error.value)
    facts = {"limit": limit, "value": value, "scope": scope}
    # The name of a limit on a job says that already.
    each = "" if limit.endswith(("_per_job", "_per_group")) else f" for each {scope}"
    limited = f"at most {value}{each}"
    violation = QuotaFailure.Violation(subject=limit, description=limited)
    details: list[Message] = [QuotaFailure(violations=[violation])]
    if scope != "request":  # else a retry cannot succeed
        details.append(_retry(error.retry_after))
    return Refusal(
        codes.RESOURCE_EXHAUSTED,
        reasons.ERROR_REASON_LIMIT_EXCEEDED,
        f"{limit} is limited to {value}{each}",
        facts | ({"caller": error.caller} if error.caller else {}),
        details,
    )


_AFTER_THE_END: Final = {"RERUN": "rerun", "DELETED": "deleted"}


def _why_illegal(current: str, target: str, allowed: Sequence[str]) -> str:
    if target == current:
        return " already"
    if target in allowed:  # a report on a job that was not started
        return f"; this needs {target}"
    if target in _AFTER_THE_END:
        return f"; only a job that has ended can be {_AFTER_THE_END[target]}"
    return f"; it can change to {' or '.join(allowed)}, not to {target}"


def _precondition(reason: ErrorReason.ValueType, message: str, **facts: str) -> Refusal:
    violation = PreconditionFailure.Violation(
        type=_name(reason), subject=facts["job_id"], description=message
    )
    details = [PreconditionFailure(violations=[violation])]
    return Refusal(codes.FAILED_PRECONDITION, reason, message, facts, details)


def _unavailable(
    message: str, facts: Mapping[str, str] = NO_FACTS, delay: int = DEFAULT_RETRY_SECONDS
) -> Refusal:
    reason = reasons.ERROR_REASON_UNAVAILABLE
    return Refusal(codes.UNAVAILABLE, reason, message, facts, [_retry(delay)])


def _retry(delay: float) -> RetryInfo:
    return RetryInfo(retry_delay=timedelta(seconds=min(delay, MAX_RETRY_SECONDS)))


def printed(value: str) -> str:
    """Return a value that a caller named, short and printable."""
    return "".join(c if c.isprintable() else "?" for c in value[:MAX_NAMED_CHARACTERS])


def _name(reason: ErrorReason.ValueType) -> str:
    return ErrorReason.Name(reason).removeprefix("ERROR_REASON_")
