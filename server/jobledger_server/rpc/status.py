"""Errors as gRPC codes and details. Nothing internal is sent: a bug is logged under an id."""

import logging
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from jobledger.v1 import worker_service_pb2
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
from jobledger_server.rpc.access.permissions import AccessDenied, Unauthenticated
from jobledger_server.rpc.validation import InvalidRequest
from jobledger_server.store import FeedCompacted, StoreUnavailable
from jobledger_server.watch.feed_reader import ForeignCursor
from jobledger_server.watch.job_watch import Draining

DOMAIN = "jobledger"

RETRY_SECONDS = 1
"""How long a caller is asked to wait before a retry that may succeed."""

VIOLATIONS_BYTES = 1500
"""Bytes of violations in a status at most. A status contains them three times, in base64 and
percent-encoded, and clients cut trailers at 8 KiB."""

FOREIGN = "is of another database, or this one was restored from a backup: start without a token"

_PREFIX = "ERROR_REASON_"

log = logging.getLogger("jobledger.rpc")


def status_of(error: Exception) -> status_pb2.Status:
    """Return the status of an error. A bug is logged under an id, and the status has the id."""
    status = _known_status(error)
    if status is None:
        correlation_id = uuid.uuid4().hex
        log.error("internal_error", exc_info=error, extra={"correlation_id": correlation_id})
        status = _internal_status(correlation_id)
    return status


def reason_of(error: BaseException) -> str:
    """Return the reason of an error, as callers get it."""
    status = _known_status(error) if isinstance(error, Exception) else None
    if status is None:
        return _name(ErrorReason.ERROR_REASON_INTERNAL)
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return str(info.reason)


def update_error(error: Exception) -> worker_service_pb2.UpdateError:
    """Return the error of one update of a stream."""
    status = status_of(error)
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return worker_service_pb2.UpdateError(
        code=status.code,
        reason=ErrorReason.Value(f"{_PREFIX}{info.reason}"),
        message=status.message,
        metadata=info.metadata,
    )


def _known_status(error: Exception) -> status_pb2.Status | None:
    """Return the status of an error that has one, or None for a bug."""
    match error:
        case InvalidRequest():
            return _invalid(error)
        case DomainError():
            return _refusal(error)
        case Unauthenticated():
            return _status(
                code_pb2.UNAUTHENTICATED,
                ErrorReason.ERROR_REASON_UNAUTHENTICATED,
                "this call needs a valid identity",
                {},
            )
        case AccessDenied():
            return _status(
                code_pb2.PERMISSION_DENIED,
                ErrorReason.ERROR_REASON_ACCESS_DENIED,
                "this caller may not make this call",
                {},
            )
        case Draining(too_old=too_old, resume_token=token):
            facts = {"resume_token": token} if token else {}
            if too_old:
                return _unavailable("stream reached its maximum age; reconnect", facts, 0)
            return _unavailable("this server is shutting down", facts)
        case StoreUnavailable(kind="disk_full" | "read_only"):
            return _unavailable("the database does not accept writes at the moment")
        case StoreUnavailable():
            return _unavailable("the database does not answer")
        case FeedCompacted():
            return _status(
                code_pb2.OUT_OF_RANGE,
                ErrorReason.ERROR_REASON_RESUME_TOKEN_EXPIRED,
                "the resume token has expired, deletions after it are lost: start without a token",
                {},
            )
        case ForeignCursor():
            return _known_status(InvalidRequest([("resume_token", FOREIGN)], token=True))
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
        case IllegalTransition(job_id, current, target, allowed):
            return _precondition(
                ErrorReason.ERROR_REASON_ILLEGAL_TRANSITION,
                f"job {job_id} is {current.value}{_why_illegal(current.value, target, allowed)}",
                {
                    "job_id": job_id,
                    "current": current.value,
                    "target": target,
                    "allowed": ",".join(allowed),
                },
            )
        case JobTerminal(job_id, current, target):
            return _precondition(
                ErrorReason.ERROR_REASON_JOB_TERMINAL,
                f"job {job_id} is {current.value}, a terminal state",
                {"job_id": job_id, "current": current.value, "target": target, "allowed": ""},
            )
        case LeaseLost(job_id, attempt):
            return _status(
                code_pb2.ABORTED,
                ErrorReason.ERROR_REASON_LEASE_LOST,
                f"job {job_id} is at attempt {attempt}, not the caller's: stop working on it",
                {"job_id": job_id, "attempt": str(attempt)},
            )
        case VersionMismatch(job_id, version):
            return _status(
                code_pb2.ABORTED,
                ErrorReason.ERROR_REASON_VERSION_MISMATCH,
                f"job {job_id} is at version {version}, not the expected one",
                {"job_id": job_id, "version": str(version)},
            )
        case RequestIdReused(request_id, kind, existing_id, index):
            return _status(
                code_pb2.ALREADY_EXISTS,
                ErrorReason.ERROR_REASON_REQUEST_ID_REUSED,
                f"the request id {request_id!r} was used before with other content",
                {"request_id": request_id} | ({} if index is None else {"index": str(index)}),
                error_details_pb2.ResourceInfo(
                    resource_type=f"jobledger.v1.{kind}", resource_name=existing_id
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
    texts = [f"{name} {description}" for name, description in named]
    reason = (
        ErrorReason.ERROR_REASON_INVALID_TOKEN
        if error.token
        else ErrorReason.ERROR_REASON_INVALID_FIELD
    )
    return _status(
        code_pb2.INVALID_ARGUMENT,
        reason,
        "; ".join(texts) + (f"; and {more} more" if more else ""),
        {"more": str(more)} if more else {},
        error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field=name, description=description)
                for name, description in named
            ]
        ),
    )


def _bytes_in_message(text: str) -> int:
    """Return the bytes of a text in `grpc-message`, which percent-encodes all but ASCII."""
    return sum(1 if 0x20 <= byte < 0x7F else 3 for byte in text.encode())  # noqa: PLR2004


def _limit_exceeded(error: LimitExceeded) -> status_pb2.Status:
    limit, scope = error.limit, error.scope
    value = str(int(error.value) if error.value == int(error.value) else error.value)
    violation = error_details_pb2.QuotaFailure.Violation(
        subject=limit, description=f"at most {value} for each {scope}"
    )
    # No RetryInfo if a retry cannot succeed.
    retry = () if scope == "request" else (_retry(error.retry_after),)
    facts = {"limit": limit, "value": value, "scope": scope}
    return _status(
        code_pb2.RESOURCE_EXHAUSTED,
        ErrorReason.ERROR_REASON_LIMIT_EXCEEDED,
        f"at most {value} {limit} are allowed for each {scope}",
        facts | ({"caller": error.caller} if error.caller else {}),
        error_details_pb2.QuotaFailure(violations=[violation]),
        *retry,
    )


def _why_illegal(current: str, target: str, allowed: Sequence[str]) -> str:
    if target == current:
        return " already"
    if target in allowed:  # a report on a job that was not started
        return f"; this needs {target}"
    return f"; it can change to {' or '.join(allowed)}, not to {target}"


def _internal_status(correlation_id: str) -> status_pb2.Status:
    """Return the status of a bug, with the id under which the operator finds it in the log."""
    return _status(
        code_pb2.INTERNAL,
        ErrorReason.ERROR_REASON_INTERNAL,
        f"internal error; see {correlation_id} in the server's log",
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


def _retry(delay: float = RETRY_SECONDS) -> error_details_pb2.RetryInfo:
    seconds = int(delay)
    nanos = int((delay - seconds) * 1_000_000_000)
    return error_details_pb2.RetryInfo(retry_delay=Duration(seconds=seconds, nanos=nanos))


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
