"""Converts requests of QueueService to settings and queries. Raises InvalidRequest."""

from collections.abc import Sequence
from typing import Any

from jobledger.v1 import queue_service_pb2 as pb
from jobledger_server.admission.caller import Caller
from jobledger_server.domain.job import JobId, Silent
from jobledger_server.domain.limits import (
    MAX_JOB_TYPE_CHARACTERS,
    MAX_MESSAGE_CHARACTERS,
    MAX_NAME_CHARACTERS,
    MAX_PRIORITY,
    MAX_RETENTION_SECONDS,
    MIN_RETENTION_SECONDS,
)
from jobledger_server.domain.queues import MAX_RUNNING
from jobledger_server.domain.settings import (
    PauseKey,
    PauseType,
    ResumeKey,
    ResumeType,
    SetLimit,
    SetTypeDefaults,
)
from jobledger_server.domain.type_defaults import FIELDS, TypeDefaults
from jobledger_server.rpc import fields
from jobledger_server.rpc.validation import JOB_TYPE, Checker, InvalidRequest


def stats(request: pb.ListJobTypeStatsRequest) -> tuple[Sequence[str], str]:
    """Return the types and the tenant whose jobs are counted; what is empty counts all."""
    with Checker() as check:
        check.at_least_zero("page_size", request.page_size)
        job_types = tuple(sorted(fields.job_types(check, request.job_types)))
        tenant = request.fairness_key
        check.name("fairness_key", tenant, MAX_NAME_CHARACTERS, required=False)
    return job_types, tenant


def explained_job(request: pb.ExplainJobRequest) -> tuple[JobId, str | None]:
    """Return the job's id, and its owner if one is named."""
    with Checker() as check:
        job_id = fields.job_id(check, request.job_id)
        user_id = fields.user_id(check, request.user_id, required=False) or None
    return job_id, user_id


def pause_type(request: pb.PauseJobTypeRequest, caller: Caller) -> PauseType:
    with Checker() as check:
        return PauseType(
            check.job_type("job_type", request.job_type), _reason(check, request), caller.identity
        )


def resume_type(request: pb.ResumeJobTypeRequest) -> ResumeType:
    with Checker() as check:
        return ResumeType(check.job_type("job_type", request.job_type))


def set_limit(request: pb.SetConcurrencyLimitRequest) -> SetLimit:
    with Checker() as check:
        max_running = None
        if request.HasField("max_running"):
            max_running = check.number("max_running", request.max_running, 0, MAX_RUNNING)
        return SetLimit(_name(check, request.name), max_running)


def pause_key(request: pb.PauseConcurrencyKeyRequest, caller: Caller) -> PauseKey:
    with Checker() as check:
        return PauseKey(_name(check, request.name), _reason(check, request), caller.identity)


def resume_key(request: pb.ResumeConcurrencyKeyRequest) -> ResumeKey:
    with Checker() as check:
        return ResumeKey(_name(check, request.name))


def type_defaults(request: pb.SetJobTypeDefaultsRequest) -> SetTypeDefaults:
    given = request.defaults
    policy: dict[str, Any] = {}
    with Checker() as check:
        job_type = check.job_type("job_type", request.job_type)
        within = check.within("defaults.")
        if given.HasField("retry_policy"):
            values = fields.retry_policy(within, given.retry_policy)
            policy = dict(zip(FIELDS[Silent.RETRY_POLICY], values, strict=True))
        priority = None
        if given.HasField("priority"):
            priority = within.number("priority", given.priority, 0, MAX_PRIORITY)
        defaults = TypeDefaults(
            **policy,
            queue_timeout=fields.timeout(within, given, "queue_timeout"),
            run_timeout=fields.timeout(within, given, "run_timeout"),
            stall_timeout=fields.timeout(within, given, "stall_timeout"),
            priority=priority,
            retention=fields.optional_duration(
                within, given, "retention", MIN_RETENTION_SECONDS, MAX_RETENTION_SECONDS
            ),
        )
    return SetTypeDefaults(job_type, defaults)


def types(request: pb.ListJobTypesRequest) -> None:
    """Check a request for a list of types."""
    with Checker() as check:
        check.at_least_zero("page_size", request.page_size)


def limits(request: pb.ListConcurrencyLimitsRequest) -> None:
    """Check a request for a list of limits."""
    with Checker() as check:
        check.at_least_zero("page_size", request.page_size)


def type_from(cursor: str) -> str:
    """Return a cursor that is a job type or empty. Raises InvalidRequest."""
    if cursor and (len(cursor) > MAX_JOB_TYPE_CHARACTERS or not JOB_TYPE.match(cursor)):
        raise InvalidRequest([("page_token", "is damaged")], token=True)
    return cursor


def name_from(cursor: str) -> str:
    """Return the name of keys in a cursor, or nothing if that is empty. Raises InvalidRequest."""
    try:
        name = bytes.fromhex(cursor).decode()
        with Checker() as check:
            return check.name("page_token", name, MAX_NAME_CHARACTERS, required=bool(cursor))
    except (ValueError, InvalidRequest):
        raise InvalidRequest([("page_token", "is damaged")], token=True) from None


def name_cursor(name: str) -> str:
    """Return the cursor after a name. A token has ASCII only."""
    return name.encode().hex()


def _name(check: Checker, value: str) -> str:
    return check.name("name", value, MAX_NAME_CHARACTERS)


def _reason(check: Checker, request: pb.PauseJobTypeRequest | pb.PauseConcurrencyKeyRequest) -> str:
    return check.text("reason", request.reason, MAX_MESSAGE_CHARACTERS)
