"""The one table from errors to gRPC codes and details. Nothing internal passes it."""

from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from jobledger.v1.error_reason_pb2 import ErrorReason
from jobledger_server.domain.errors import (
    DomainError,
    IllegalTransition,
    JobNotFound,
    JobTerminal,
    LeaseLost,
    LimitExceeded,
    RequestIdReused,
    VersionMismatch,
)
from jobledger_server.rpc.validation import InvalidRequest
from jobledger_server.rpc.work_limits import AccessDenied
from jobledger_server.store import FeedCompacted, StoreUnavailable
from jobledger_server.watch.feed_reader import ForeignCursor
from jobledger_server.watch.job_watch import Draining

DOMAIN = "jobledger"

RETRY_SECONDS = 1
"""How long a caller is asked to wait before it tries again, where that may help."""

VIOLATIONS_BYTES = 1500
"""What the violations of a request may take in its status. It holds them three times, in base64
and with what is not ASCII encoded, and clients cut off trailers at 8 KiB."""

FOREIGN = "is of another database, or this one was restored from a backup: begin without one"

_PREFIX = "ERROR_REASON_"


def status_of(error: Exception) -> status_pb2.Status | None:
    """Return what a caller is told of an error; None for one that is none of its business."""
    match error:
        case InvalidRequest():
            return _invalid(error)
        case DomainError():
            return _refusal(error)
        case AccessDenied():
            return _status(
                code_pb2.PERMISSION_DENIED,
                ErrorReason.ERROR_REASON_ACCESS_DENIED,
                "this caller may not use this service, act for this user, or claim these types",
                {},
            )
        case Draining(too_old=too_old, resume_token=token):
            facts = {"resume_token": token} if token else {}
            if too_old:
                return _unavailable("stream reached its maximum age; reconnect", facts, 0)
            return _unavailable("this server is shutting down", facts)
        case StoreUnavailable(kind="disk_full" | "read_only"):
            return _unavailable("the database takes no writes at the moment")
        case StoreUnavailable():
            return _unavailable("the database does not answer")
        case FeedCompacted():
            return _status(
                code_pb2.OUT_OF_RANGE,
                ErrorReason.ERROR_REASON_RESUME_TOKEN_EXPIRED,
                "the resume token is older than what is known of deletions: begin without one",
                {},
            )
        case ForeignCursor():
            return status_of(InvalidRequest([("resume_token", FOREIGN)], token=True))
        case _:
            return None


def _refusal(error: DomainError) -> status_pb2.Status | None:
    match error:
        case JobNotFound(job_id):
            return _status(
                code_pb2.NOT_FOUND,
                ErrorReason.ERROR_REASON_JOB_NOT_FOUND,
                f"this user has no job {job_id!r}",
                {"job_id": job_id},
                error_details_pb2.ResourceInfo(
                    resource_type="jobledger.v1.Job", resource_name=job_id
                ),
            )
        case IllegalTransition(job_id, current, wanted, allowed):
            return _precondition(
                ErrorReason.ERROR_REASON_ILLEGAL_TRANSITION,
                f"job {job_id} is {current.value}{_obstacle(current.value, wanted, allowed)}",
                {
                    "job_id": job_id,
                    "current": current.value,
                    "target": wanted,
                    "allowed": ",".join(allowed),
                },
            )
        case JobTerminal(job_id, current, wanted):
            return _precondition(
                ErrorReason.ERROR_REASON_JOB_TERMINAL,
                f"job {job_id} has ended as {current.value} and never changes again",
                {"job_id": job_id, "current": current.value, "target": wanted, "allowed": ""},
            )
        case LeaseLost(job_id, attempt):
            return _status(
                code_pb2.ABORTED,
                ErrorReason.ERROR_REASON_LEASE_LOST,
                f"job {job_id} is at attempt {attempt}, not at the caller's: stop working on it",
                {"job_id": job_id, "attempt": str(attempt)},
            )
        case VersionMismatch(job_id, version):
            return _status(
                code_pb2.ABORTED,
                ErrorReason.ERROR_REASON_VERSION_MISMATCH,
                f"job {job_id} is at version {version}, not at the expected one",
                {"job_id": job_id, "version": str(version)},
            )
        case RequestIdReused(request_id, made, made_id, index):
            return _status(
                code_pb2.ALREADY_EXISTS,
                ErrorReason.ERROR_REASON_REQUEST_ID_REUSED,
                f"the request id {request_id!r} was used before with other content",
                {"request_id": request_id} | ({} if index is None else {"index": str(index)}),
                error_details_pb2.ResourceInfo(
                    resource_type=f"jobledger.v1.{made}", resource_name=made_id
                ),
            )
        case LimitExceeded():
            return _limit_exceeded(error)
        case _:
            return None


def _invalid(error: InvalidRequest) -> status_pb2.Status:
    named: list[tuple[str, str]] = []
    room = VIOLATIONS_BYTES
    for name, description in error.violations:
        room -= _bytes_in_message(f"{name} {description}; ")
        if room < 0 and named:
            break
        named.append((name, description))
    more = error.more + len(error.violations) - len(named)
    words = [f"{name} {description}" for name, description in named]
    reason = (
        ErrorReason.ERROR_REASON_INVALID_TOKEN
        if error.token
        else ErrorReason.ERROR_REASON_INVALID_FIELD
    )
    return _status(
        code_pb2.INVALID_ARGUMENT,
        reason,
        "; ".join(words) + (f"; and {more} more" if more else ""),
        {"more": str(more)} if more else {},
        error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field=name, description=description)
                for name, description in named
            ]
        ),
    )


def _bytes_in_message(text: str) -> int:
    """Return the bytes of a text in `grpc-message`, where what is not ASCII is %-encoded."""
    return sum(1 if 0x20 <= byte < 0x7F else 3 for byte in text.encode())  # noqa: PLR2004


def _limit_exceeded(error: LimitExceeded) -> status_pb2.Status:
    limit, value, scope = error.limit, error.value, error.scope
    violation = error_details_pb2.QuotaFailure.Violation(
        subject=limit, description=f"at most {value} for each {scope}"
    )
    # A request that is too large stays so: no RetryInfo.
    retry = () if scope == "request" else (_retry(),)
    return _status(
        code_pb2.RESOURCE_EXHAUSTED,
        ErrorReason.ERROR_REASON_LIMIT_EXCEEDED,
        f"at most {value} {limit} are allowed for each {scope}",
        {"limit": limit, "value": str(value), "scope": scope},
        error_details_pb2.QuotaFailure(violations=[violation]),
        *retry,
    )


def _obstacle(current: str, wanted: str, allowed: Sequence[str]) -> str:
    if wanted == current:
        return " already"
    if wanted in allowed:  # a report on a job that was not started
        return f", this needs {wanted}"
    return f", from where {wanted} cannot be reached, only {' or '.join(allowed)}"


def internal_status(correlation_id: str) -> status_pb2.Status:
    """Return what a caller is told of a bug: where the operator finds the rest."""
    return _status(
        code_pb2.INTERNAL,
        ErrorReason.ERROR_REASON_INTERNAL,
        f"internal error; the server's log has more under {correlation_id}",
        {"correlation_id": correlation_id},
    )


def _precondition(
    reason: ErrorReason.ValueType, message: str, facts: dict[str, str]
) -> status_pb2.Status:
    failure = error_details_pb2.PreconditionFailure.Violation(
        type=_name(reason), subject=facts["job_id"], description=message
    )
    return _status(
        code_pb2.FAILED_PRECONDITION,
        reason,
        message,
        facts,
        error_details_pb2.PreconditionFailure(violations=[failure]),
    )


def _unavailable(
    message: str, facts: dict[str, str] | None = None, delay: int = RETRY_SECONDS
) -> status_pb2.Status:
    reason = ErrorReason.ERROR_REASON_UNAVAILABLE
    return _status(code_pb2.UNAVAILABLE, reason, message, facts or {}, _retry(delay))


def _retry(delay: int = RETRY_SECONDS) -> error_details_pb2.RetryInfo:
    return error_details_pb2.RetryInfo(retry_delay=Duration(seconds=delay))


def _name(reason: ErrorReason.ValueType) -> str:
    return ErrorReason.Name(reason).removeprefix(_PREFIX)


def _status(
    code: Any,
    reason: ErrorReason.ValueType,
    message: str,
    facts: dict[str, str],
    *details: Any,
) -> status_pb2.Status:
    info = error_details_pb2.ErrorInfo(reason=_name(reason), domain=DOMAIN, metadata=facts)
    return status_pb2.Status(code=code, message=message, details=_packed((info, *details)))


def _packed(details: Iterable[Any]) -> list[AnyMessage]:
    packed = []
    for detail in details:
        message = AnyMessage()
        message.Pack(detail)
        packed.append(message)
    return packed
