"""What a call can raise, as facts.

JobledgerError                 any answer that is not OK
├── InvalidField               a field breaks its stated rule
├── InvalidToken               a page or resume token is damaged or of another query
├── ResumeTokenExpired         too much was forgotten since; list the jobs again
├── JobNotFound                no such job for this user
├── IllegalTransition          the job's state does not allow this
├── JobTerminal                the job has ended and never changes again
├── LeaseLost                  the attempt is no longer the job's
├── VersionMismatch            the job changed since the caller looked
├── RequestIdReused            the request id was used with other content
├── LimitExceeded              a limit of the service; wait `retry_after`
├── AccessDenied               the caller may not do this
├── Unavailable                no server, a draining one, or no database
├── DeadlineExceeded           no answer within the timeout
└── InternalError              a bug; `correlation_id` finds it in the log

The class follows from the reason in the answer's google.rpc.ErrorInfo. Without
one (a proxy answered, or nobody did) it follows from the status code, and is
JobledgerError itself where the code tells no more. The grpc error stays
reachable as `__cause__`.
"""

from collections.abc import Iterable, Mapping
from typing import cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from jobledger.v1.error_reason_pb2 import ErrorReason
from jobledger.v1.worker_service_pb2 import ReportError

DOMAIN = "jobledger"

_DETAIL_TYPES: dict[str, type[Message]] = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (
        error_details_pb2.BadRequest,
        error_details_pb2.ErrorInfo,
        error_details_pb2.PreconditionFailure,
        error_details_pb2.QuotaFailure,
        error_details_pb2.ResourceInfo,
        error_details_pb2.RetryInfo,
    )
}


class JobledgerError(Exception):
    """A call was refused or got no answer.

    `code` is the status code, `reason` the name of the ErrorReason without its
    prefix (empty where the answer had none), `message` the server's words,
    `metadata` the facts, `details` all google.rpc messages of the answer.
    """

    # Every attribute has a default, so that errors can be pickled.
    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        details: Iterable[Message] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.details = list(details)

    def __str__(self) -> str:
        return self.message or self.reason or self.code.name

    @property
    def retry_after(self) -> float | None:
        """How long to wait before another try, in seconds; None where the server did not say."""
        for detail in self.details:
            if isinstance(detail, error_details_pb2.RetryInfo):
                return float(detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9)
        return None


class InvalidField(JobledgerError):
    """At least one field of the request breaks its stated rule."""

    @property
    def violations(self) -> list[tuple[str, str]]:
        """Every broken rule: the field's path and what is wrong with it.

        In create_jobs() the path begins with the job's place: `requests[3].job_type`.
        Of a report on a stream only the message tells.
        """
        return [
            (violation.field, violation.description)
            for detail in self.details
            if isinstance(detail, error_details_pb2.BadRequest)
            for violation in detail.field_violations
        ]


class InvalidToken(JobledgerError):
    """A page token or resume token is damaged, of another query or of another database."""


class ResumeTokenExpired(JobledgerError):
    """The resume token is older than what the service remembers of deletions: list again."""


class JobNotFound(JobledgerError):
    """There is no such job, or it is not this user's: the two are never told apart."""


class _StateRefusal(JobledgerError):
    """The job's state speaks against it."""

    @property
    def current(self) -> str:
        """The state that the job is in, without prefix: `QUEUED`."""
        return self.metadata.get("current", "")

    @property
    def target(self) -> str:
        """The state that was asked for or needed."""
        return self.metadata.get("target", "")

    @property
    def allowed(self) -> tuple[str, ...]:
        """The states that can follow the current one."""
        return tuple(filter(None, self.metadata.get("allowed", "").split(",")))


class IllegalTransition(_StateRefusal):
    """The job's state does not allow this."""


class JobTerminal(_StateRefusal):
    """The job has ended and never changes again."""


class LeaseLost(JobledgerError):
    """The job is someone else's now: stop working on it."""

    @property
    def attempt(self) -> int | None:
        """The job's current attempt."""
        return _number(self.metadata.get("attempt"))


class VersionMismatch(JobledgerError):
    """The job's version is not the expected one."""

    @property
    def version(self) -> int | None:
        """The job's current version."""
        return _number(self.metadata.get("version"))


class RequestIdReused(JobledgerError):
    """The request id was used before with other content."""

    @property
    def index(self) -> int | None:
        """Which of the jobs of create_jobs() it is, from 0 on; None for any other call."""
        return _number(self.metadata.get("index"))


class LimitExceeded(JobledgerError):
    """A limit of the service was reached; `retry_after` says when to come back."""


class AccessDenied(JobledgerError):
    """The caller may not use this service or act for this user."""


class Unavailable(JobledgerError):
    """No server was reached, or it drains. Whether a change was made is unknown."""


class DeadlineExceeded(JobledgerError):
    """No answer came within the timeout. Whether a change was made is unknown."""


class InternalError(JobledgerError):
    """A bug in the service."""

    @property
    def correlation_id(self) -> str | None:
        """Finds the cause in the server's log; None where a stream was merely reset."""
        return self.metadata.get("correlation_id")


BY_REASON: dict[str, type[JobledgerError]] = {
    "INVALID_FIELD": InvalidField,
    "INVALID_TOKEN": InvalidToken,
    "JOB_NOT_FOUND": JobNotFound,
    "ILLEGAL_TRANSITION": IllegalTransition,
    "JOB_TERMINAL": JobTerminal,
    "LEASE_LOST": LeaseLost,
    "VERSION_MISMATCH": VersionMismatch,
    "REQUEST_ID_REUSED": RequestIdReused,
    "RESUME_TOKEN_EXPIRED": ResumeTokenExpired,
    "LIMIT_EXCEEDED": LimitExceeded,
    "ACCESS_DENIED": AccessDenied,
    "UNAVAILABLE": Unavailable,
    "INTERNAL": InternalError,
}

# Only codes that mean the same whoever gave them. NOT_FOUND is not among them:
# from a proxy it says nothing about a job.
_BY_CODE: dict[grpc.StatusCode, type[JobledgerError]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitExceeded,
    grpc.StatusCode.PERMISSION_DENIED: AccessDenied,
    grpc.StatusCode.UNAUTHENTICATED: AccessDenied,
    grpc.StatusCode.INTERNAL: InternalError,
}

_STATUS_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc_error(error: grpc.RpcError) -> JobledgerError:
    """Read a grpc error, of the sync or the aio stack, with `error` as the cause."""
    code: grpc.StatusCode = error.code()
    message: str = error.details() or ""
    details = _details(error)
    info = next(
        (
            detail
            for detail in details
            if isinstance(detail, error_details_pb2.ErrorInfo) and detail.domain == DOMAIN
        ),
        error_details_pb2.ErrorInfo(),
    )
    kind = BY_REASON.get(info.reason) or _BY_CODE.get(code, JobledgerError)
    result = kind(
        message, code=code, reason=info.reason, metadata=dict(info.metadata), details=details
    )
    result.__cause__ = error
    return result


def from_report_error(error: ReportError) -> JobledgerError:
    """Read what is wrong with one report of a stream, as update_progress would raise it."""
    # What a newer server may say has no name here.
    named = error.reason in ErrorReason.values() and error.reason
    reason = ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_") if named else ""
    code = _STATUS_CODES.get(error.code, grpc.StatusCode.UNKNOWN)
    kind = BY_REASON.get(reason) or _BY_CODE.get(code, JobledgerError)
    facts = dict(error.metadata)
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=facts)
    return kind(error.message, code=code, reason=reason, metadata=facts, details=[info])


def _details(error: grpc.RpcError) -> list[Message]:
    try:
        # Every RpcError that a call raises is also a Call; the types do not say so.
        status = rpc_status.from_call(cast("grpc.Call", error))
        packed = status.details if status else []
        found = []
        for item in packed:
            kind = _DETAIL_TYPES.get(item.type_url.rpartition("/")[2])
            if kind is not None:
                found.append(kind.FromString(item.value))
    except (ValueError, DecodeError):
        # Something on the way rewrote the status: what is left is the code.
        return []
    return found


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
