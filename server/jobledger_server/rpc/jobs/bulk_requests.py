"""Converts requests that change many jobs to queries. Raises InvalidRequest."""

from collections.abc import Set as AbstractSet
from typing import NamedTuple

from msgspec.structs import replace

from jobledger.v1 import job_service_pb2 as pb
from jobledger_server.domain.job import CANCELLED, Instant, JobId, JobStatus, is_id
from jobledger_server.domain.limits import (
    DEFAULT_BULK_JOBS,
    MAX_BULK_JOBS,
    MAX_JOBS_PER_SECOND,
    MAX_MESSAGE_CHARACTERS,
    MIN_JOBS_PER_SECOND,
)
from jobledger_server.domain.state_machine import TERMINAL
from jobledger_server.rpc import fields
from jobledger_server.rpc.jobs.job_requests import filtered
from jobledger_server.rpc.tokens import read_token, token
from jobledger_server.rpc.validation import Checker, InvalidRequest
from jobledger_server.store import JobQuery

BulkRequest = pb.RerunJobsRequest | pb.CancelJobsRequest | pb.DeleteJobsRequest


class Step(NamedTuple):
    """One step through the jobs of a query, newest first.

    Attributes:
        query: Which jobs.
        limit: How many at most.
        key: Identifies the query. A token is valid only for an equal key.
        before: The job after which the step begins; None for the newest.
        next_time: When the next new job may start, of those that have a pace.
        validate_only: Nothing is to be changed.
        jobs_per_second: The pace of new jobs; 0 for none.
        reason: Of a cancellation.
    """

    query: JobQuery
    limit: int
    key: object
    before: JobId | None
    next_time: Instant
    validate_only: bool
    jobs_per_second: float = 0.0
    reason: str = ""

    def token(self, before: JobId | None, next_time: int = 0) -> str:
        """Return the token of the next step; empty if there is none."""
        return "" if before is None else token(self.key, f"{before} {next_time}")


def rerun_jobs(request: pb.RerunJobsRequest) -> Step:
    pace = request.jobs_per_second
    failed = frozenset({JobStatus.FAILED})
    with Checker() as check:
        if pace:
            check.number("jobs_per_second", pace, MIN_JOBS_PER_SECOND, MAX_JOBS_PER_SECOND)
        query = _query(check, request, TERMINAL, default=failed)
    if query.cancelled is None and CANCELLED not in query.error_reasons:
        query = replace(query, cancelled=False)
    step = _step(request, replace(query, not_rerun=True), ("rerun", pace))
    return step._replace(jobs_per_second=pace)


def cancel_jobs(request: pb.CancelJobsRequest) -> Step:
    active = frozenset(JobStatus) - TERMINAL
    with Checker() as check:
        query = _query(check, request, active, default=active)
        reason = check.text("reason", request.reason, MAX_MESSAGE_CHARACTERS)
    return _step(request, replace(query, uncancelled=True), "cancel")._replace(reason=reason)


def delete_jobs(request: pb.DeleteJobsRequest) -> Step:
    with Checker() as check:
        query = _query(check, request, TERMINAL, default=TERMINAL)
    return _step(request, query, "delete")


def _query(
    check: Checker,
    request: BulkRequest,
    allowed: AbstractSet[JobStatus],
    *,
    default: frozenset[JobStatus],
) -> JobQuery:
    user_id = fields.user_id(check, request.user_id, required=False) or None
    query = filtered(check.within("filter."), request.filter, user_id)
    for status in sorted(query.statuses - allowed, key=lambda status: status.value):
        check.add("filter.statuses", f"has {status.value}, which this call cannot change")
    # A program that has computed an empty filter cannot have meant all jobs.
    if request.all == bool(request.filter.ByteSize()):
        check.add("filter", "is required and not empty, or all, and not both")
    check.number("max_jobs", request.max_jobs, 0, MAX_BULK_JOBS)
    return replace(query, statuses=query.statuses or default)


def _step(request: BulkRequest, query: JobQuery, call: object) -> Step:
    limit = request.max_jobs or DEFAULT_BULK_JOBS
    key = call, query.key()
    before, next_time = None, 0
    if request.page_token:
        content = read_token("page_token", key, request.page_token)
        last, _, time = content.partition(" ")
        # A token's digest is not secret, so its content can be anything.
        if not is_id(last) or not time.isdigit() or len(time) > len(str(2**63)):
            raise InvalidRequest([("page_token", "is damaged")], token=True)
        before, next_time = JobId(last), int(time)
    return Step(query, limit, key, before, Instant(next_time), request.validate_only)
