"""The exceptions of the clients.

JobledgerError                 any failed call
├── InvalidField               a field breaks its rule; a ValueError too
├── InvalidToken               a page or resume token is damaged, or of another query; a ValueError
├── ResumeTokenExpired         too many changes were compacted since: list the jobs again
├── JobNotFound                no such job for this user; a LookupError too
├── IllegalTransition          the job's status does not allow this
├── JobTerminal                the job is terminal and never changes again
├── JobStarted                 the job was started: it cannot be changed any more
├── JobNotDue                  the job is scheduled for later
├── WebhookNotFound            no such webhook for this user; a LookupError too
├── WebhookNotHeld             another deliverer holds the webhook, or nobody
├── LeaseLost                  the attempt is no longer the job's
├── VersionMismatch            the job has changed since it was read
├── OutputGap                  an earlier piece of output is not stored
├── IsAGroup                   the job is a group, which no worker runs
├── NotAGroup                  the job is no group
├── GroupSealed                no job can be added to the group any more
├── JobInGroup                 the job is deleted with its group only
├── RequestIdReused            the request id was used with other content
├── UniqueKeyTaken             another job with this unique key is not terminal
├── Paused                     the job's type or concurrency key is paused
├── AssetNameTaken             the job has another asset of this name
├── MessageTooLarge            the request or its answer is too large; a ValueError too
├── LimitExceeded              a limit of the service; wait `retry_after` seconds
│   └── ConcurrencyLimitReached    as many jobs with this concurrency key run as may
├── AccessDenied               the caller may not do this; a PermissionError too
│   └── Unauthenticated        the caller has no valid identity: see its token and certificate
├── Unavailable                no server, database or token at present; a ConnectionError too
├── DeadlineExceeded           no answer within the timeout; a TimeoutError too
├── JobFailed                  a job has no result: it is FAILED, or PARTIAL without one
├── ClientClosed               the client was closed before or during the call
└── InternalError              a bug; `correlation_id` finds it in the log

The class follows from the reason in the answer's google.rpc.ErrorInfo. If there is none, because a
proxy answered or nobody did, it follows from the status code, and is JobledgerError itself if the
code says no more. The grpc error is the `__cause__`.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from jobledger.v1.error_reason_pb2 import ErrorReason
from jobledger.v1.worker_service_pb2 import UpdateError

DOMAIN = "jobledger"

_TLS_OR_NEITHER = "that both sides use TLS or neither does"
_NO_CONNECTION = f"no connection (check the address, and {_TLS_OR_NEITHER})"

# gRPC's words before the cause. If it changes them, its whole message stays.
_CONNECTING = re.compile(
    r"^failed to connect to all addresses; last error: (\w+: )?(\S+: )?"
    r"(Failed to connect to remote host: )?"
)

# What gRPC says of a peer that closes the connection at its first bytes, or answers without TLS.
_MISUNDERSTOOD = re.compile("Socket closed|Connection reset|End of TCP stream|WRONG_VERSION_NUMBER")

_DETAIL_TYPES: dict[str, type[Message]] = {
    kind.full_name: GetMessageClass(kind)
    for kind in error_details_pb2.DESCRIPTOR.message_types_by_name.values()
}


class JobledgerError(Exception):
    """A call was refused or got no answer.

    Attributes:
        message: for people.
        code: the status code.
        reason: the name of the ErrorReason without its prefix; empty if the answer has none.
        metadata: the facts, by name.
        details: all google.rpc messages of the answer.
        request_id: the id that the request had, to repeat it with: then it is done once, whether
            this call was or not. Empty if it had none.
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
        self.request_id = ""

    def __str__(self) -> str:
        return self.message or self.reason or self.code.name

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait before a retry; None if the server did not say."""
        for detail in self.details:
            if isinstance(detail, error_details_pb2.RetryInfo):
                return float(detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9)
        return None


class InvalidField(JobledgerError, ValueError):
    """At least one field of the request breaks its rule."""

    @property
    def violations(self) -> list[tuple[str, str]]:
        """Every broken rule: the field's path and what is wrong with it.

        In create_jobs() the path begins with the job's index: `requests[3].job_type`. Empty for a
        report on a stream, whose message says it all.
        """
        return [
            (violation.field, violation.description)
            for detail in self.details
            if isinstance(detail, error_details_pb2.BadRequest)
            for violation in detail.field_violations
        ]


class InvalidToken(JobledgerError, ValueError):
    """A page token or resume token is damaged, of another query or of another database."""


class ResumeTokenExpired(JobledgerError):
    """The changes after the resume token were compacted: list the jobs again."""


class JobNotFound(JobledgerError, LookupError):
    """There is no such job, or it is another user's: the answer is the same."""


class WebhookNotFound(JobledgerError, LookupError):
    """There is no such webhook, or it is another user's: the answer is the same."""


class WebhookNotHeld(JobledgerError):
    """The deliverer's claim has ended: another one holds the webhook, or it is gone or disabled."""


class _StateRefusal(JobledgerError):
    """The job's status does not allow it."""

    @property
    def current(self) -> str:
        """The status of the job: `QUEUED`."""
        return self.metadata.get("current", "")

    @property
    def target(self) -> str:
        """The status that was requested or needed."""
        return self.metadata.get("target", "")

    @property
    def allowed(self) -> tuple[str, ...]:
        """The statuses that can follow the current one."""
        return tuple(filter(None, self.metadata.get("allowed", "").split(",")))


class IllegalTransition(_StateRefusal):
    """The job's status does not allow this."""


class JobTerminal(_StateRefusal):
    """The job is terminal and never changes again."""


class JobStarted(JobledgerError):
    """The job was started: it cannot be changed any more."""


class JobNotDue(JobledgerError):
    """The job is scheduled for later: it cannot be started before."""

    @property
    def schedule_time(self) -> datetime | None:
        """When it can be started, by the database server's clock."""
        text = self.metadata.get("schedule_time")
        return None if text is None else datetime.fromisoformat(text)


class LeaseLost(JobledgerError):
    """Another worker holds the job, or nobody: stop working on it."""

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


class OutputGap(JobledgerError):
    """An earlier append of the attempt to the stream is not stored: send that one first."""

    @property
    def number(self) -> int | None:
        """The number of the append that comes next."""
        return _number(self.metadata.get("number"))


class IsAGroup(JobledgerError):
    """The job is a group: no worker runs it, and it has no turn."""


class NotAGroup(JobledgerError):
    """The job is no group."""


class GroupSealed(JobledgerError):
    """No job can be added to the group any more."""


class JobInGroup(JobledgerError):
    """The job is deleted with its group only."""

    @property
    def group_id(self) -> str | None:
        """The group."""
        return self.metadata.get("group_id")


class RequestIdReused(JobledgerError):
    """The request id was used before with other content."""

    @property
    def index(self) -> int | None:
        """The index of the job in create_jobs(); None for any other call."""
        return _number(self.metadata.get("index"))


class UniqueKeyTaken(JobledgerError):
    """Another job of this owner and type with this unique key is not terminal."""

    @property
    def unique_key(self) -> str:
        """The key."""
        return self.metadata.get("unique_key", "")

    @property
    def job_id(self) -> str:
        """The job that has it."""
        return self.metadata.get("job_id", "")

    @property
    def index(self) -> int | None:
        """The index of the refused job in create_jobs(); None for any other call."""
        return _number(self.metadata.get("index"))


class Paused(JobledgerError):
    """An operator has paused the job's type or concurrency key: it is not started until resumed."""

    @property
    def job_type(self) -> str:
        """The type, if it is paused."""
        return self.metadata.get("job_type", "")

    @property
    def concurrency_key(self) -> str:
        """The job's key, if it is paused."""
        return self.metadata.get("concurrency_key", "")


class AssetNameTaken(JobledgerError):
    """The job has another asset of this name."""

    @property
    def name(self) -> str:
        """The name."""
        return self.metadata.get("name", "")


class MessageTooLarge(JobledgerError, ValueError):
    """The request, or its answer, is larger than a limit: a retry cannot help."""


class LimitExceeded(JobledgerError):
    """A quota or an overload: retry after `retry_after` seconds."""


class ConcurrencyLimitReached(LimitExceeded):
    """As many jobs with the job's concurrency key are held as its limit allows."""

    @property
    def concurrency_key(self) -> str:
        """The key."""
        return self.metadata.get("concurrency_key", "")

    @property
    def max_running(self) -> int | None:
        """How many may be held."""
        return _number(self.metadata.get("max_running"))


class AccessDenied(JobledgerError, PermissionError):
    """The caller may not make this call."""


class Unauthenticated(AccessDenied):
    """The caller has no valid identity: its token or certificate is missing, old or unknown."""


class Unavailable(JobledgerError, ConnectionError):
    """No server was reached, or it drains. Whether a change was made is unknown.

    Or the function that is to return the token raised OSError.
    """


class DeadlineExceeded(JobledgerError, TimeoutError):
    """No answer came within the timeout. Whether a change was made is unknown."""


class ClientClosed(JobledgerError):
    """The client was closed before or during the call."""


class InternalError(JobledgerError):
    """A bug in the service."""

    @property
    def correlation_id(self) -> str | None:
        """Finds the cause in the server's log; None if a stream was merely reset."""
        return self.metadata.get("correlation_id")


BY_REASON: dict[str, type[JobledgerError]] = {
    "INVALID_FIELD": InvalidField,
    "INVALID_TOKEN": InvalidToken,
    "JOB_NOT_FOUND": JobNotFound,
    "ILLEGAL_TRANSITION": IllegalTransition,
    "JOB_TERMINAL": JobTerminal,
    "WEBHOOK_NOT_FOUND": WebhookNotFound,
    "WEBHOOK_NOT_HELD": WebhookNotHeld,
    "LEASE_LOST": LeaseLost,
    "VERSION_MISMATCH": VersionMismatch,
    "REQUEST_ID_REUSED": RequestIdReused,
    "RESUME_TOKEN_EXPIRED": ResumeTokenExpired,
    "LIMIT_EXCEEDED": LimitExceeded,
    "ACCESS_DENIED": AccessDenied,
    "UNAVAILABLE": Unavailable,
    "INTERNAL": InternalError,
    "UNAUTHENTICATED": Unauthenticated,
    "JOB_NOT_DUE": JobNotDue,
    "JOB_STARTED": JobStarted,
    "OUTPUT_GAP": OutputGap,
    "IS_A_GROUP": IsAGroup,
    "NOT_A_GROUP": NotAGroup,
    "GROUP_SEALED": GroupSealed,
    "JOB_IN_GROUP": JobInGroup,
    "ASSET_NAME_TAKEN": AssetNameTaken,
    "UNIQUE_KEY_TAKEN": UniqueKeyTaken,
    "PAUSED": Paused,
    "CONCURRENCY_LIMIT": ConcurrencyLimitReached,
}

# Only codes that mean the same from any sender. NOT_FOUND is not among them: from a proxy it says
# nothing about a job.
_BY_CODE: dict[grpc.StatusCode, type[JobledgerError]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitExceeded,
    grpc.StatusCode.PERMISSION_DENIED: AccessDenied,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.INTERNAL: InternalError,
}

_STATUS_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def from_rpc_error(
    error: grpc.RpcError,
    *,
    target: str = "",
    timeout: float | None = None,
    connected: bool | None = None,
    refusal: JobledgerError | None = None,
) -> JobledgerError:
    """Convert a grpc error, of the blocking or the asyncio stack; `error` becomes the cause.

    Args:
        error: what the call raised.
        target: the server's address, for the message if no server answered.
        timeout: seconds that the call could take, for the same.
        connected: whether there is a connection to the server, for the same; None if that is not
            known.
        refusal: what an earlier attempt of the same call was answered, for the same.
    """
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
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and target:
        if refusal is not None:
            cause = refusal.message
        elif connected is False:
            cause = _NO_CONNECTION
        elif message != "Deadline Exceeded":  # which gRPC says of a deadline of its own
            cause = message
        else:
            cause = "it is connected" if connected else f"it is slow, or there is {_NO_CONNECTION}"
        message = _no_answer(target, timeout, cause)
    elif code is grpc.StatusCode.UNAVAILABLE and (cause := _CONNECTING.sub("", message)) != message:
        advice = f" (check {_TLS_OR_NEITHER})" if _MISUNDERSTOOD.search(cause) else ""
        message = f"cannot connect to {target or 'the server'}: {cause}{advice}"
    elif code is grpc.StatusCode.UNAVAILABLE and not info.reason and target not in message:
        # gRPC names an address that the target was resolved to, if any.
        message = f"{target}: {message}"
    result = _kind(info.reason, code, message, info.metadata)(
        message,
        code=code,
        reason=info.reason,
        metadata=dict(info.metadata),
        details=details,
    )
    result.__cause__ = error
    return result


def out_of_time(refusal: JobledgerError, *, target: str, timeout: float | None) -> DeadlineExceeded:
    """Return the error of a call whose deadline passes before it may be made again.

    Args:
        refusal: what its last attempt was answered, which becomes the cause.
        target: the server's address.
        timeout: seconds that the call could take.
    """
    error = DeadlineExceeded(
        _no_answer(target, timeout, refusal.message),
        code=grpc.StatusCode.DEADLINE_EXCEEDED,
    )
    error.__cause__ = refusal
    return error


def _no_answer(target: str, timeout: float | None, cause: str) -> str:
    within = "" if timeout is None else f" within {timeout:g} s"
    return f"no answer from {target}{within}: {cause}"


def _kind(
    reason: str, code: grpc.StatusCode, message: str, metadata: Mapping[str, str]
) -> type[JobledgerError]:
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and (
        metadata.get("scope") == "request" or "larger than max" in message
    ):
        return MessageTooLarge
    return BY_REASON.get(reason) or _BY_CODE.get(code, JobledgerError)


def from_update_error(error: UpdateError) -> JobledgerError:
    """Convert the error of one update of a stream, to what a call would raise."""
    # A reason of a newer server has no name here.
    named = error.reason in ErrorReason.values() and error.reason
    reason = ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_") if named else ""
    code = _STATUS_CODES.get(error.code, grpc.StatusCode.UNKNOWN)
    facts = dict(error.metadata)
    kind = _kind(reason, code, error.message, facts)
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
        # A proxy rewrote the status: only the code is left.
        return []
    return found


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
