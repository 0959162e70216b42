"""Checks and converts the fields that requests of several services have."""

from collections.abc import Sequence
from functools import partial

from google.protobuf.message import Message

from jobledger.v1 import job_pb2
from jobledger_server.domain.job import (
    DEFAULT_BACKOFF_MULTIPLIER,
    DEFAULT_INITIAL_BACKOFF,
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_MAX_BACKOFF,
    MICROS_PER_SECOND,
    Instant,
    JobId,
    JobStatus,
    Micros,
    Phase,
)
from jobledger_server.domain.limits import (
    MAX_ATTEMPTS,
    MAX_BACKOFF_MULTIPLIER,
    MAX_BACKOFF_SECONDS,
    MAX_ID_CHARACTERS,
    MAX_INITIAL_BACKOFF_SECONDS,
    MAX_JOB_IDS,
    MAX_JOB_TYPES,
    MAX_NAME_CHARACTERS,
    MAX_PHASES,
    MAX_STATUSES,
    MAX_TIMEOUT_SECONDS,
    MIN_BACKOFF_MULTIPLIER,
    MIN_BACKOFF_SECONDS,
    MIN_TIMEOUT_SECONDS,
)
from jobledger_server.rpc.validation import Checker

STATUSES = {job_pb2.JobStatus.Value(f"JOB_STATUS_{s.value}"): s for s in JobStatus}

PHASES = {job_pb2.JobPhase.Value(f"JOB_PHASE_{phase.name}"): phase for phase in Phase}


def job_id(check: Checker, value: str) -> JobId:
    return JobId(check.name("job_id", value, MAX_ID_CHARACTERS))


def job_ids(check: Checker, values: Sequence[str]) -> list[JobId]:
    name = partial(check.name, limit=MAX_ID_CHARACTERS)
    return [JobId(value) for value in check.each("job_ids", values, MAX_JOB_IDS, name)]


def user_id(check: Checker, value: str, *, required: bool = True) -> str:
    return check.name("user_id", value, MAX_NAME_CHARACTERS, required=required)


def worker_id(check: Checker, value: str, *, required: bool = True) -> str:
    return check.name("worker_id", value, MAX_NAME_CHARACTERS, required=required)


def request_id(check: Checker, value: str) -> str:
    return check.name("request_id", value, MAX_NAME_CHARACTERS, required=False)


def job_types(check: Checker, values: Sequence[str]) -> tuple[str, ...]:
    """Return each type once, in their order."""
    return tuple(dict.fromkeys(check.each("job_types", values, MAX_JOB_TYPES, check.job_type)))


def statuses(check: Checker, field: str, values: Sequence[int]) -> list[JobStatus]:
    if not check.at_most(field, values, MAX_STATUSES):
        return []
    found = []
    for value in values:
        if value in STATUSES:
            found.append(STATUSES[job_pb2.JobStatus.ValueType(value)])
        else:
            check.add(field, "is required" if value == 0 else f"has the unknown value {value}")
    return found


def phases(check: Checker, values: Sequence[int]) -> frozenset[Phase]:
    found: set[Phase] = set()
    if check.at_most("phases", values, MAX_PHASES):
        for value in values:
            if value in PHASES:
                found.add(PHASES[job_pb2.JobPhase.ValueType(value)])
            else:
                check.add("phases", f"has the unknown value {value}")
    return frozenset(found)


def optional_time(check: Checker, request: Message, field: str) -> Instant | None:
    """Return the time in a field, or None if it is not set."""
    return check.timestamp(field, getattr(request, field)) if request.HasField(field) else None


def optional_duration(
    check: Checker, request: Message, field: str, shortest: float, longest: float
) -> Micros | None:
    """Return the duration in a field, or None if it is not set."""
    if not request.HasField(field):
        return None
    return check.duration(field, getattr(request, field), shortest, longest)


def timeout(check: Checker, request: Message, field: str) -> Micros | None:
    """Return the `queue_timeout`, `run_timeout` or `stall_timeout`, or None if it is not set."""
    return optional_duration(check, request, field, MIN_TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS)


def retry_policy(check: Checker, policy: job_pb2.RetryPolicy) -> tuple[int, Micros, Micros, float]:
    """Return the fields of a policy in their order, with the service's defaults."""
    within = check.within("retry_policy.")
    attempts = within.number("max_attempts", policy.max_attempts, 0, MAX_ATTEMPTS)
    initial = DEFAULT_INITIAL_BACKOFF
    if policy.HasField("initial_backoff"):
        bounds = MIN_BACKOFF_SECONDS, MAX_INITIAL_BACKOFF_SECONDS
        initial = within.duration("initial_backoff", policy.initial_backoff, *bounds)
    longest = max(initial, DEFAULT_MAX_BACKOFF)
    if policy.HasField("max_backoff"):
        least = initial / MICROS_PER_SECOND
        longest = within.duration("max_backoff", policy.max_backoff, least, MAX_BACKOFF_SECONDS)
    multiplier = policy.backoff_multiplier or DEFAULT_BACKOFF_MULTIPLIER
    bounds = MIN_BACKOFF_MULTIPLIER, MAX_BACKOFF_MULTIPLIER
    within.number("backoff_multiplier", multiplier, *bounds)
    return attempts or DEFAULT_MAX_ATTEMPTS, initial, longest, multiplier


def is_full(check: Checker, view: int, *, default: bool) -> bool:
    """Return whether the view is FULL; `default` says that of a request without one."""
    if view == job_pb2.JOB_VIEW_UNSPECIFIED:
        return default
    if view not in (job_pb2.JOB_VIEW_BASIC, job_pb2.JOB_VIEW_FULL):
        check.add("view", f"has the unknown value {view}")
    return view == job_pb2.JOB_VIEW_FULL
