"""The state machine: which transition is legal, and what each command does to a job.

Pure: the time and the source of new ids are passed in, nothing is read or kept.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from jobledger_server.domain.commands import Create, Delete, JobCommand, LinkAsset, Report, Transit
from jobledger_server.domain.errors import (
    IllegalTransition,
    JobNotFound,
    JobTerminal,
    LeaseLost,
    RequestIdReused,
    VersionMismatch,
)
from jobledger_server.domain.model import (
    Asset,
    AssetId,
    AssetLink,
    Instant,
    Job,
    JobId,
    JobStatus,
    Transition,
)

TRANSITIONS: Mapping[JobStatus, tuple[JobStatus, ...]] = {
    JobStatus.QUEUED: (JobStatus.PROCESSING,),
    JobStatus.PROCESSING: (JobStatus.COMPLETED, JobStatus.PARTIAL, JobStatus.FAILED),
    JobStatus.COMPLETED: (),
    JobStatus.PARTIAL: (),
    JobStatus.FAILED: (),
}
"""Every legal transition. There is no other edge."""

TERMINAL = frozenset(status for status, targets in TRANSITIONS.items() if not targets)
"""The states that a job never leaves."""

FULL_PROGRESS = 100

NewId = Callable[[], str]
"""Gives a UUIDv7 that is greater than the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a command comes to.

    `job` is the job afterwards. Where `changed` is false nothing is to be
    written: the command was a repetition, or it was late (`applied` false).
    """

    job: Job
    changed: bool = True
    applied: bool = True
    deleted: bool = False
    transition: Transition | None = None
    assets: tuple[Asset, ...] = ()


def create(existing: Job | None, command: Create, *, now: Instant, new_id: NewId) -> Decision:
    """Decide on a creation; `existing` is the owner's job with the same request id.

    Raises RequestIdReused where that job was created with other content.
    """
    if existing is not None:
        same = (
            existing.job_type == command.job_type
            and existing.parameters == command.parameters
            and existing.labels == command.labels
        )
        if not same:
            raise RequestIdReused(command.request_id, "Job", existing.id)
        return Decision(job=existing, changed=False)
    return Decision(
        job=Job(
            id=JobId(new_id()),
            user_id=command.user_id,
            job_type=command.job_type,
            parameters=command.parameters,
            labels=command.labels,
            request_id=command.request_id,
            create_time=now,
            update_time=now,
        )
    )


def decide(
    job: Job | None,
    command: JobCommand,
    *,
    now: Instant,
    new_id: NewId,
    linked: Asset | None = None,
) -> Decision:
    """Decide on a command, given the job as it stands.

    `linked` is the job's asset with the request id of a LinkAsset, if there is
    one. Raises a DomainError where the command is refused.
    """
    if job is None:
        raise JobNotFound(command.job_id)
    match command:
        case Transit():
            return _transit(job, command, now, new_id)
        case Report():
            _check_attempt(job, command.attempt)
            return _report(job, command, now)
        case LinkAsset():
            _check_attempt(job, command.attempt)
            return _link_asset(job, command, linked, now, new_id)
        case Delete():
            return _delete(job, command, now)
        case _:
            assert_never(command)


def _transit(job: Job, command: Transit, now: Instant, new_id: NewId) -> Decision:
    _check_attempt(job, command.attempt)
    if job.status in TERMINAL:
        if job.end_digest == digest_of_end(command):
            return Decision(job=job, changed=False)
        raise JobTerminal(job.id, job.status, command.target.value)
    if command.expected_version is not None and command.expected_version != job.version:
        raise VersionMismatch(job.id, job.version)
    if job.status is command.target is JobStatus.PROCESSING:
        return _repeat_start(job, command, now)
    if command.target not in TRANSITIONS[job.status]:
        raise _illegal(job, command.target.value)
    return _move(job, command, now, new_id)


def _repeat_start(job: Job, command: Transit, now: Instant) -> Decision:
    """Tell a running job's holder from a second worker that wants to start it.

    Who names the attempt or the version knows that the job runs and reports
    progress. Who names neither is starting it, and only the worker that started
    it may do so again: its answer was lost.
    """
    if command.attempt is None and command.expected_version is None:
        if not command.worker_id or command.worker_id != job.worker_id:
            raise _illegal(job, command.target.value)
        return Decision(job=job, changed=False)
    return _progress(job, command.progress, command.progress_message, now)


def _move(job: Job, command: Transit, now: Instant, new_id: NewId) -> Decision:
    target = command.target
    message = command.progress_message
    moved = replace(
        job,
        status=target,
        progress=max(job.progress, command.progress or 0),
        progress_message=job.progress_message if message is None else message,
        update_time=now,
        version=job.version + 1,
    )
    if target in TERMINAL:
        moved = replace(
            moved,
            progress=moved.progress if target is JobStatus.FAILED else FULL_PROGRESS,
            result=command.result,
            error=command.error,
            complete_time=now,
            end_digest=digest_of_end(command),
        )
    else:
        moved = replace(moved, attempt=job.attempt + 1, worker_id=command.worker_id, start_time=now)
    transition = Transition(
        job_id=job.id,
        from_status=job.status,
        to_status=target,
        version=moved.version,
        attempt=moved.attempt,
        actor=command.worker_id or moved.worker_id or "worker",
        reason=moved.error.reason if moved.error else "",
        time=now,
    )
    assets = _link_all(job, command.assets, now, new_id)
    return Decision(job=moved, transition=transition, assets=assets)


def _report(job: Job, command: Report, now: Instant) -> Decision:
    if job.status in TERMINAL:
        return Decision(job=job, changed=False, applied=False)
    if job.status is not JobStatus.PROCESSING:
        raise _illegal(job, JobStatus.PROCESSING.value)
    return _progress(job, command.progress, command.progress_message, now)


def _link_asset(
    job: Job, command: LinkAsset, linked: Asset | None, now: Instant, new_id: NewId
) -> Decision:
    if linked is not None:
        # A repetition is answered alike whatever has become of the job since.
        if linked.link != command.link:
            raise RequestIdReused(command.request_id, "Asset", linked.id)
        return Decision(job=job, changed=False, assets=(linked,))
    if job.status in TERMINAL:
        raise JobTerminal(job.id, job.status, JobStatus.PROCESSING.value)
    if job.status is not JobStatus.PROCESSING:
        raise _illegal(job, JobStatus.PROCESSING.value)
    assets = _link_all(job, (command.link,), now, new_id, command.request_id)
    return Decision(job=_next_version(job, now), assets=assets)


def _delete(job: Job, command: Delete, now: Instant) -> Decision:
    if job.user_id != command.user_id:
        raise JobNotFound(job.id)
    if job.status not in TERMINAL:
        raise _illegal(job, "DELETED")
    return Decision(job=_next_version(job, now), deleted=True)


def _check_attempt(job: Job, attempt: int | None) -> None:
    if attempt is not None and attempt != job.attempt:
        raise LeaseLost(job.id, job.attempt)


def _illegal(job: Job, wanted: str) -> IllegalTransition:
    allowed = tuple(status.value for status in TRANSITIONS[job.status])
    return IllegalTransition(job.id, job.status, wanted, allowed)


def _progress(job: Job, progress: int | None, message: str | None, now: Instant) -> Decision:
    new_progress = job.progress if progress is None else progress
    new_message = job.progress_message if message is None else message
    if new_progress < job.progress:
        return Decision(job=job, changed=False, applied=False)
    if new_progress == job.progress and new_message == job.progress_message:
        return Decision(job=job, changed=False)
    reported = replace(job, progress=new_progress, progress_message=new_message)
    return Decision(job=_next_version(reported, now))


def _next_version(job: Job, now: Instant) -> Job:
    return replace(job, update_time=now, version=job.version + 1)


def _link_all(
    job: Job, links: tuple[AssetLink, ...], now: Instant, new_id: NewId, request_id: str = ""
) -> tuple[Asset, ...]:
    return tuple(
        Asset(
            id=AssetId(new_id()),
            job_id=job.id,
            user_id=job.user_id,
            link=link,
            create_time=now,
            request_id=request_id,
        )
        for link in links
    )


def digest_of_end(command: Transit) -> bytes:
    """Fingerprint the content of a terminal report: 16 bytes, equal for equal content.

    Content is what the report says of the outcome. Who says it and what it
    expected to find (`worker_id`, `attempt`, `expected_version`) is not.
    """
    error = command.error
    parts: list[str | bytes | int | None] = [
        command.target.value,
        command.progress,
        command.progress_message,
        command.result,
        *((error.reason, error.message, error.details) if error else (None, None, None)),
    ]
    for link in command.assets:
        parts += [link.asset_type, link.url, link.storage_path, link.file_size]
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else b"" if part is None else str(part).encode()
        # The length keeps neighbours apart, and -1 tells an absent part from an empty one.
        digest.update(b"%d:" % (-1 if part is None else len(data)))
        digest.update(data)
    return digest.digest()
