"""Converts requests of WorkerService to commands. Raises InvalidRequest."""

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from google.protobuf.message import Message
from msgspec.structs import replace

from jobledger.v1 import worker_service_pb2 as pb
from jobledger_server.admission.caller import Caller
from jobledger_server.domain.commands import (
    AppendOutput,
    ChangeStatus,
    Claim,
    LinkAsset,
    Release,
    Report,
    WorkerCommand,
)
from jobledger_server.domain.job import MICROS_PER_SECOND, JobId, JobStatus, Micros
from jobledger_server.domain.limits import (
    MAX_CLAIM_WAIT_SECONDS,
    MAX_CLAIMED_JOBS,
    MAX_JOB_TYPES,
    MAX_LEASE_SECONDS,
    MAX_SLOTS,
    MIN_LEASE_SECONDS,
)
from jobledger_server.domain.state_machine import TERMINAL
from jobledger_server.rpc import fields
from jobledger_server.rpc.validation import Checker, InvalidRequest
from jobledger_server.rpc.workers import updates

DEFAULT_CLAIM_LEASE = Micros(60 * MICROS_PER_SECOND)
"""The lease of a claimed job if the request has none."""

Limited = TypeVar("Limited", bound=WorkerCommand)

Held = list[tuple[JobId, int]]
"""Jobs, with their attempts."""

MarkRequest = pb.MarkCompletedRequest | pb.MarkPartialRequest | pb.MarkFailedRequest

Finishing = MarkRequest | pb.TransitionJobRequest

_ENDS_ONLY = "is allowed for terminal states only"

_REPORTS_ONLY = "is not allowed here: report it with UpdateProgress"

_TARGETS: Mapping[type, JobStatus] = {
    pb.MarkCompletedRequest: JobStatus.COMPLETED,
    pb.MarkPartialRequest: JobStatus.PARTIAL,
    pb.MarkFailedRequest: JobStatus.FAILED,
}


class WorkerRequests:
    """Converts requests. `url_schemes` are the schemes that an asset's URL may have."""

    def __init__(self, url_schemes: Collection[str]) -> None:
        self._url_schemes = url_schemes

    def claim(self, request: pb.ClaimJobsRequest) -> tuple[Claim, float, Held | None]:
        """Return the claim, the seconds that it may wait for a job, and what the worker holds.

        The last is None if the worker does not say so.
        """
        with Checker() as check:
            max_jobs = check.number("max_jobs", request.max_jobs, 0, MAX_CLAIMED_JOBS) or 1
            command = claim(check, request, max_jobs)
            wait = check.duration("wait", request.wait, 0, MAX_CLAIM_WAIT_SECONDS)
            held = holding(check, request.holding)
            if held and request.holds_none:
                check.add("holds_none", "is not allowed with a holding")
        says = request.holds_none or bool(request.holding)
        return command, wait / MICROS_PER_SECOND, held if says else None

    def release(self, request: pb.ReleaseJobRequest) -> Release:
        with Checker() as check:
            return updates.release(
                check.within("release."),
                request.release,
                fields.job_id(check, request.job_id),
                held_attempt(check, request.attempt),
            )

    def change_status(self, request: pb.TransitionJobRequest) -> ChangeStatus:
        has = request.HasField
        with Checker() as check:
            target = status(check, "target_status", request.target_status)
            if target is None:  # it is refused
                target = JobStatus.PROCESSING
            elif target is not JobStatus.PROCESSING and has("lease_duration"):
                check.add("lease_duration", f"is not allowed for {target.value}")
            if target in TERMINAL:
                command = self._finish(check, request, target)
            else:
                _refuse(check, request, ("attempt", "any_attempt", "finish"), _ENDS_ONLY)
                command = ChangeStatus(job_id=fields.job_id(check, request.job_id), target=target)
            update, within = request.progress, check.within("progress.")
            _refuse(within, update, ("checkpoint", "report_number"), _REPORTS_ONLY)
            return replace(
                command,
                expected_version=request.expected_version if has("expected_version") else None,
                progress=updates.progress(within, update),
                progress_message=updates.progress_message(within, update),
                worker_id=fields.worker_id(check, request.worker_id, required=False),
                lease_duration=lease(check, request),
            )

    def mark(self, request: MarkRequest) -> ChangeStatus:
        with Checker() as check:
            return self._finish(check, request, _TARGETS[type(request)])

    def report(self, request: pb.UpdateProgressRequest) -> Report:
        with Checker() as check:
            return updates.report(
                check.within("progress."),
                request.progress,
                fields.job_id(check, request.job_id),
                fence(check, request),
            )

    def link_asset(self, request: pb.CreateAssetRequest) -> LinkAsset:
        with Checker() as check:
            return updates.link_asset(
                check.within("asset."),
                request.asset,
                self._url_schemes,
                fields.job_id(check, request.job_id),
                fence(check, request),
            )

    def append_output(self, request: pb.AppendOutputRequest) -> AppendOutput:
        with Checker() as check:
            job_id, attempt = held(check, request)
            return updates.append_output(check, request, job_id, attempt)

    def _finish(self, check: Checker, request: Finishing, target: JobStatus) -> ChangeStatus:
        """Return the change to the terminal status that a call says."""
        update, within = request.finish, check.within("finish.")
        if update.status and status(within, "status", update.status) is not target:
            within.add("status", "is another one than the call says: leave it out")
        job_id = fields.job_id(check, request.job_id)
        attempt = fence(check, request)
        return updates.finish(within, update, self._url_schemes, job_id, attempt, target=target)


def _refuse(check: Checker, message: Message, names: Collection[str], why: str) -> None:
    """Refuse these fields of a message, if it has them."""
    for field, _ in message.ListFields():
        if field.name in names:
            check.add(field.name, why)


def limited(command: Limited, caller: Caller) -> Limited:
    """Return a worker's command with its caller's limits.

    Raises InvalidRequest if the caller means any attempt and may not.
    """
    permissions = caller.permissions
    start = isinstance(command, ChangeStatus) and command.target not in TERMINAL
    if permissions.fenced and command.attempt is None and not start:
        raise InvalidRequest([("any_attempt", "is not allowed for this caller")])
    if permissions.job_types is None:
        return command
    return replace(command, job_types=permissions.job_types)


_Fenced = Finishing | pb.UpdateProgressRequest | pb.CreateAssetRequest


def fence(check: Checker, request: _Fenced) -> int | None:
    """Return the attempt that a request names, or None for any attempt."""
    if not request.HasField("attempt"):
        if not request.any_attempt:
            check.add("attempt", "is required, unless any_attempt is true")
        return None
    if request.any_attempt:
        check.add("any_attempt", "is not allowed with an attempt")
    return request.attempt


def held_attempt(check: Checker, attempt: int) -> int:
    if attempt < 1:
        check.add("attempt", "is required, 1 or more")
    return attempt


def holding(check: Checker, given: Sequence[pb.HeldJob]) -> Held:
    """Return the jobs that a worker holds, with their attempts."""
    if not check.at_most("holding", given, MAX_SLOTS):
        return []
    return [held(check.within(f"holding[{index}]."), each) for index, each in enumerate(given)]


def held(
    check: Checker, job: pb.HeldJob | pb.JobUpdate | pb.AppendOutputRequest
) -> tuple[JobId, int]:
    attempt = held_attempt(check, job.attempt)
    return fields.job_id(check, job.job_id), attempt


def claim(check: Checker, request: pb.ClaimJobsRequest | pb.WorkHello, max_jobs: int) -> Claim:
    if not request.job_types:
        check.add("job_types", f"must have from 1 to {MAX_JOB_TYPES} entries")
    return Claim(
        worker_id=fields.worker_id(check, request.worker_id),
        job_types=fields.job_types(check, request.job_types),
        max_jobs=max_jobs,
        lease_duration=lease(check, request) or DEFAULT_CLAIM_LEASE,
    )


def status(check: Checker, field: str, value: int) -> JobStatus | None:
    """Return a status, or None if it was refused."""
    return next(iter(fields.statuses(check, field, [value])), None)


def lease(
    check: Checker, request: pb.ClaimJobsRequest | pb.TransitionJobRequest | pb.WorkHello
) -> Micros | None:
    bounds = MIN_LEASE_SECONDS, MAX_LEASE_SECONDS
    return fields.optional_duration(check, request, "lease_duration", *bounds)
