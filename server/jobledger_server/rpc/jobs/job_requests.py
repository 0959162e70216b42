"""Converts requests of JobService to commands and queries. Raises InvalidRequest."""

import math
import time
from collections.abc import Sequence
from typing import Any

from jobledger.v1 import job_service_pb2 as pb
from jobledger_server.admission.caller import WatchScope
from jobledger_server.domain.commands import (
    Cancel,
    Create,
    CreateAll,
    Delete,
    NewGroup,
    Seal,
    Update,
)
from jobledger_server.domain.job import (
    DEFAULT_PRIORITY,
    MICROS_PER_SECOND,
    Instant,
    JobId,
    Micros,
    Silent,
)
from jobledger_server.domain.limits import (
    DEFAULT_WATCH_TOKEN_SECONDS,
    MAX_CREATIONS,
    MAX_DELAY_SECONDS,
    MAX_ERROR_REASONS,
    MAX_ID_CHARACTERS,
    MAX_JOB_IDS,
    MAX_MESSAGE_CHARACTERS,
    MAX_NAME_CHARACTERS,
    MAX_PRIORITY,
    MAX_WATCH_TOKEN_SECONDS,
)
from jobledger_server.rpc import fields
from jobledger_server.rpc.validation import Checker
from jobledger_server.store import JobQuery
from jobledger_server.watch.feed_watch import Selection

_CREATION_FIELDS = pb.CreateJobRequest.DESCRIPTOR.fields_by_name
_TIMEOUTS = tuple(name for name in _CREATION_FIELDS if name.endswith("_timeout"))
_KEYS = tuple(name for name in _CREATION_FIELDS if name.endswith("_key"))
_SWITCHES = tuple(name for name, field in _CREATION_FIELDS.items() if field.type == field.TYPE_BOOL)

ListRequest = pb.ListAssetsRequest | pb.ListTransitionsRequest | pb.ListAttemptsRequest

ViewRequest = pb.GetJobRequest | pb.WatchJobRequest

_Owned = (
    ViewRequest
    | ListRequest
    | pb.DeleteJobRequest
    | pb.CancelJobRequest
    | pb.UpdateJobRequest
    | pb.RerunJobRequest
    | pb.SealGroupRequest
)


def create(request: pb.CreateJobRequest, *, traceparent: str = "") -> Create:
    with Checker() as check:
        user_id = fields.user_id(check, request.user_id)
        if request.HasField("group_index"):
            check.add("group_index", "is for BatchCreateJobs only")
        if request.group.sealed:
            check.add("group.sealed", "is for BatchCreateJobs only, with the jobs of the group")
        return _creation(check, request, user_id, traceparent)


def create_all(request: pb.BatchCreateJobsRequest, *, traceparent: str = "") -> CreateAll:
    with Checker() as check:
        user_id = fields.user_id(check, request.user_id)
        if not 1 <= len(request.requests) <= MAX_CREATIONS:
            check.add("requests", f"must have from 1 to {MAX_CREATIONS} entries")
        creations = []
        for index, each in enumerate(request.requests[:MAX_CREATIONS]):
            if each.user_id not in ("", user_id):
                check.add(f"requests[{index}].user_id", "must be empty or the user_id of the call")
            within = check.within(f"requests[{index}].")
            _check_group_index(within, each, index, request.requests)
            creations.append(_creation(within, each, user_id, traceparent))
        filled = {each.group_index for each in creations}
        for index, creation in enumerate(creations):
            if creation.group is not None and creation.group.sealed and index not in filled:
                check.add(f"requests[{index}].group.sealed", "needs jobs of the group in this call")
    return CreateAll(tuple(creations))


def _check_group_index(
    check: Checker,
    request: pb.CreateJobRequest,
    index: int,
    requests: Sequence[pb.CreateJobRequest],
) -> None:
    if not request.HasField("group_index"):
        return
    if request.group_id:
        check.add("group_index", "must not be set together with group_id")
    named = request.group_index
    if not 0 <= named < index or not requests[named].HasField("group"):
        check.add("group_index", "must be the index of an earlier request with a group")


def viewed_job(request: ViewRequest) -> tuple[JobId, str, bool]:
    """Return the job's id, the owner on whose behalf the call is made, and if the view is FULL."""
    with Checker() as check:
        job_id, user_id = _owned_job(check, request)
        full = fields.is_full(check, request.view, default=True)
        if isinstance(request, pb.WatchJobRequest):
            check.at_least_zero("after_version", request.after_version)
    return job_id, user_id, full


def listed_job(request: ListRequest) -> tuple[JobId, str]:
    """Return the id of the job of which something is listed, and its owner."""
    with Checker() as check:
        job_id, user_id = _owned_job(check, request)
        check.at_least_zero("page_size", request.page_size)
    return job_id, user_id


def batch(request: pb.BatchGetJobsRequest) -> tuple[list[JobId], str, bool]:
    """Return the ids of the jobs, their owner, and whether the view is FULL."""
    with Checker() as check:
        user_id = fields.user_id(check, request.user_id)
        ids = fields.job_ids(check, request.job_ids)
        if not request.job_ids:
            check.add("job_ids", f"must have from 1 to {MAX_JOB_IDS} entries")
        if len(set(ids)) < len(ids):
            check.add("job_ids", "has an id more than once")
        full = fields.is_full(check, request.view, default=False)
    return ids, user_id, full


def seal(request: pb.SealGroupRequest) -> Seal:
    with Checker() as check:
        job_id, user_id = _owned_job(check, request)
    return Seal(job_id=job_id, user_id=user_id)


def delete(request: pb.DeleteJobRequest) -> Delete:
    with Checker() as check:
        job_id, user_id = _owned_job(check, request)
    return Delete(job_id=job_id, user_id=user_id)


def cancel(request: pb.CancelJobRequest) -> Cancel:
    with Checker() as check:
        job_id, user_id = _owned_job(check, request)
        reason = check.text("reason", request.reason, MAX_MESSAGE_CHARACTERS)
    return Cancel(job_id=job_id, user_id=user_id, reason=reason)


def update(request: pb.UpdateJobRequest) -> Update:
    with Checker() as check:
        job_id, user_id = _owned_job(check, request)
        priority = _priority(check, request)
        schedule_time = _schedule_time(check, request)
        if priority is None and schedule_time is None:
            check.add("priority", "is required, or schedule_time, or both")
    version = request.expected_version if request.HasField("expected_version") else None
    return Update(
        job_id=job_id,
        user_id=user_id,
        priority=priority,
        schedule_time=schedule_time,
        expected_version=version,
    )


def rerun(request: pb.RerunJobRequest) -> tuple[JobId, str, str]:
    """Return the job's id, its owner, and the request id of its rerun."""
    with Checker() as check:
        job_id, user_id = _owned_job(check, request)
        request_id = fields.request_id(check, request.request_id)
    return job_id, user_id, request_id


def query(request: pb.ListJobsRequest) -> tuple[JobQuery, bool]:
    """Return the query, and whether the view is FULL."""
    with Checker() as check:
        check.at_least_zero("page_size", request.page_size)
        full = fields.is_full(check, request.view, default=False)
        user_id = fields.user_id(check, request.user_id, required=False) or None
        found = filtered(check.within("filter."), request.filter, user_id)
    return found, full


def filtered(check: Checker, request: pb.JobFilter, user_id: str | None) -> JobQuery:
    """Return the query of a filter."""
    reasons = check.each("error_reasons", request.error_reasons, MAX_ERROR_REASONS, check.reason)
    origin = check.name("origin_job_id", request.origin_job_id, MAX_ID_CHARACTERS, required=False)
    for field in ("unique_key", "request_id"):
        if getattr(request, field) and user_id is None:
            check.add(field, "needs a user_id")
    return JobQuery(
        user_id=user_id,
        statuses=frozenset(fields.statuses(check, "statuses", request.statuses)),
        job_types=frozenset(fields.job_types(check, request.job_types)),
        labels=check.labels("labels", request.labels),
        created_after=fields.optional_time(check, request, "created_after"),
        created_before=fields.optional_time(check, request, "created_before"),
        error_reasons=frozenset(reasons),
        origin_job_id=JobId(origin) if origin else None,
        held=request.held if request.HasField("held") else None,
        cancelled=request.cancelled if request.HasField("cancelled") else None,
        unique_key=_key(check, "unique_key", request.unique_key),
        request_id=fields.request_id(check, request.request_id),
        concurrency_key=_key(check, "concurrency_key", request.concurrency_key),
        phases=fields.phases(check, request.phases),
        worker_id=fields.worker_id(check, request.worker_id, required=False),
        group_id=_group_id(check, request.group_id),
    )


def selection(request: pb.WatchJobsRequest) -> tuple[Selection, bool]:
    """Return the selection, and whether the view is FULL."""
    with Checker() as check:
        full = fields.is_full(check, request.view, default=False)
        selected = Selection(
            user_id=fields.user_id(check, request.user_id, required=False) or None,
            job_types=frozenset(fields.job_types(check, request.job_types)),
            labels=check.labels("labels", request.labels),
            job_ids=frozenset(fields.job_ids(check, request.job_ids)),
            group_id=_group_id(check, request.group_id),
        )
    return selected, full


def watch_token(request: pb.CreateWatchTokenRequest) -> tuple[WatchScope, int]:
    """Return the jobs that a token is for, and when it expires, in seconds since 1970."""
    with Checker() as check:
        scope = WatchScope(
            fields.user_id(check, request.user_id),
            check.name("job_id", request.job_id, MAX_ID_CHARACTERS, required=False),
            check.labels("labels", request.labels),
            output=request.output,
        )
        if bool(request.job_id) == bool(request.labels):
            check.add("job_id", "is required, or labels, and not both")
        ttl = fields.optional_duration(check, request, "ttl", 1, MAX_WATCH_TOKEN_SECONDS)
    seconds = DEFAULT_WATCH_TOKEN_SECONDS if ttl is None else ttl // MICROS_PER_SECOND
    return scope, math.ceil(time.time()) + seconds


def _owned_job(check: Checker, request: _Owned) -> tuple[JobId, str]:
    """Return the job's id and the owner on whose behalf the call is made."""
    return fields.job_id(check, request.job_id), fields.user_id(check, request.user_id)


def _creation(
    check: Checker, request: pb.CreateJobRequest, user_id: str, traceparent: str
) -> Create:
    # Without a policy, all of it but the number of attempts is that of the service.
    attempts, initial_backoff, max_backoff, multiplier = fields.retry_policy(
        check, request.retry_policy
    )
    priority = _priority(check, request)
    return Create(
        user_id=user_id,
        job_type=check.job_type("job_type", request.job_type),
        parameters=check.struct("parameters", request.parameters),
        labels=check.labels("labels", request.labels),
        request_id=fields.request_id(check, request.request_id),
        silent=_silent(request),
        max_attempts=attempts if request.HasField("retry_policy") else 0,
        initial_backoff=initial_backoff,
        max_backoff=max_backoff,
        backoff_multiplier=multiplier,
        schedule_time=_schedule_time(check, request),
        delay=_delay(check, request),
        traceparent=traceparent,
        priority=DEFAULT_PRIORITY if priority is None else priority,
        return_existing=_return_existing(check, request),
        group=_group(check, request),
        group_id=_group_id(check, request.group_id),
        group_index=request.group_index if request.HasField("group_index") else None,
        **{name: getattr(request, name) for name in _SWITCHES},
        **_timeouts(check, request),
        **_keys(check, request, user_id),
    )


_OF_JOBS = (
    *("retry_policy", "run_timeout", "stall_timeout", "schedule_time", "delay", "priority"),
    *("fairness_key", "concurrency_key", "refuse_output"),
)
"""What a group does not have."""


def _group(check: Checker, request: pb.CreateJobRequest) -> NewGroup | None:
    if not request.HasField("group"):
        return None
    named = {field.name for field, _ in request.ListFields()}
    for name in _OF_JOBS:
        if name in named:
            check.add(name, "must not be set for a group, which no worker runs")
    return NewGroup(request.group.fail_fast, request.group.sealed)


def _group_id(check: Checker, group_id: str) -> JobId | None:
    return JobId(check.name("group_id", group_id, MAX_ID_CHARACTERS)) if group_id else None


def _silent(request: pb.CreateJobRequest) -> int:
    """Return what the creation leaves to the defaults of its type."""
    return (
        Silent.RETRY_POLICY * (not request.HasField("retry_policy"))
        | Silent.QUEUE_TIMEOUT * (not request.HasField("queue_timeout"))
        | Silent.RUN_TIMEOUT * (not request.HasField("run_timeout"))
        | Silent.STALL_TIMEOUT * (not request.HasField("stall_timeout"))
        | Silent.PRIORITY * (not request.HasField("priority"))
    )


def _key(check: Checker, field: str, value: str) -> str:
    return value and check.name(field, value, MAX_NAME_CHARACTERS)


def _timeouts(check: Checker, request: pb.CreateJobRequest) -> dict[str, Any]:
    found = {name: fields.timeout(check, request, name) for name in _TIMEOUTS}
    return {name: span for name, span in found.items() if span is not None}


def _keys(check: Checker, request: pb.CreateJobRequest, user_id: str) -> dict[str, Any]:
    found = {name: _key(check, name, getattr(request, name)) for name in _KEYS}
    if found["fairness_key"] == user_id:  # the default
        found["fairness_key"] = ""
    return found


def _return_existing(check: Checker, request: pb.CreateJobRequest) -> bool:
    policy = request.unique_policy
    if policy:
        if policy not in pb.UniquePolicy.values():
            check.add("unique_policy", "is unknown")
        if not request.unique_key:
            check.add("unique_policy", "needs a unique_key")
    return policy == pb.UNIQUE_POLICY_RETURN_EXISTING


def _priority(check: Checker, request: pb.CreateJobRequest | pb.UpdateJobRequest) -> int | None:
    if not request.HasField("priority"):
        return None
    return check.number("priority", request.priority, 0, MAX_PRIORITY)


def _schedule_time(
    check: Checker, request: pb.CreateJobRequest | pb.UpdateJobRequest
) -> Instant | None:
    found = fields.optional_time(check, request, "schedule_time")
    if found is not None and found > (time.time() + MAX_DELAY_SECONDS) * MICROS_PER_SECOND:
        check.add("schedule_time", f"must be at most {MAX_DELAY_SECONDS // 86400} days from now")
    return found


def _delay(check: Checker, request: pb.CreateJobRequest) -> Micros | None:
    if request.HasField("delay") and request.HasField("schedule_time"):
        check.add("delay", "must not be set together with schedule_time")
    # Without a pause the job is as one that asks for none.
    return fields.optional_duration(check, request, "delay", 0, MAX_DELAY_SECONDS) or None
