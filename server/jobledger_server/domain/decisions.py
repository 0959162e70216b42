"""Decides what each command does to its job.

Pure: the time and the source of new ids are passed in, and nothing is read or stored.
"""

import hashlib
from collections.abc import Callable
from typing import assert_never

from msgspec.structs import replace

from jobledger_server.domain.commands import (
    DEFAULT_START_LEASE,
    Cancel,
    ChangeStatus,
    Create,
    Delete,
    Expire,
    JobCommand,
    LinkAsset,
    Purge,
    Release,
    Report,
    WorkerCommand,
)
from jobledger_server.domain.errors import (
    JobNotFound,
    JobTerminal,
    RequestIdReused,
    VersionMismatch,
)
from jobledger_server.domain.job import (
    Asset,
    AssetId,
    AssetLink,
    Instant,
    Job,
    JobId,
    JobStatus,
    Payload,
    Payloads,
)
from jobledger_server.domain.leases import cancel, check_attempt, expire, release
from jobledger_server.domain.state_machine import (
    TERMINAL,
    TRANSITIONS,
    Decision,
    finish,
    illegal_transition,
    start_attempt,
    with_news,
)

NewId = Callable[[], str]
"""Returns a new UUIDv7, greater than the previous one."""


Created = tuple[Job, Payload | None]
"""A job and its parameters."""


def create(found: Created | None, command: Create, *, now: Instant, new_id: NewId) -> Decision:
    """Decide a creation; `found` is the owner's job with the same request id, if any.

    Raises RequestIdReused if that job was created with other content.
    """
    if found is not None:
        existing, parameters = found
        same = (
            existing.job_type == command.job_type
            and parameters == command.parameters
            and existing.labels == command.labels
            and existing.max_attempts == command.max_attempts
            and existing.queue_timeout == command.queue_timeout
            and existing.stall_timeout == command.stall_timeout
            and existing.run_timeout == command.run_timeout
        )
        if not same:
            raise RequestIdReused(command.request_id, "Job", existing.id)
        return Decision(job=existing, changed=False)
    return Decision(
        job=Job(
            id=JobId(new_id()),
            user_id=command.user_id,
            job_type=command.job_type,
            parameters_bytes=len(command.parameters or b""),
            labels=command.labels,
            request_id=command.request_id,
            traceparent=command.traceparent,
            max_attempts=command.max_attempts,
            queue_timeout=command.queue_timeout,
            queue_expire_time=Instant(now + command.queue_timeout),
            stall_timeout=command.stall_timeout,
            run_timeout=command.run_timeout,
            create_time=now,
            update_time=now,
        ),
        payloads=Payloads(parameters=command.parameters),
    )


def decide(
    job: Job | None,
    command: JobCommand,
    *,
    now: Instant,
    new_id: NewId,
    linked: Asset | None = None,
    resumed_at: Instant | None = None,
) -> Decision:
    """Decide a command.

    Args:
        job: The job as it is now, or None if it does not exist.
        command: The command.
        now: The database server's time.
        new_id: Returns new ids.
        linked: The job's asset with the request id of a LinkAsset, if there is one.
        resumed_at: When the service's last outage ended, if it had one.

    Raises:
        DomainError: The command is refused.
    """
    if job is None or not _may_work_on(job, command):
        raise JobNotFound(command.job_id)
    match command:
        case ChangeStatus():
            return _change_status(job, command, now, new_id)
        case Report():
            return _report(job, command, now)
        case LinkAsset():
            return _link_asset(job, command, linked, now, new_id)
        case Release():
            return release(job, command, now)
        case Cancel():
            return cancel(job, command, now)
        case Expire():
            return expire(job, now, resumed_at)
        case Delete():
            return _delete(job, command, now)
        case Purge():
            return _purge(job, command, now)
        case _:
            assert_never(command)


def _may_work_on(job: Job, command: JobCommand) -> bool:
    """Whether the command may work on jobs of this job's type."""
    if not isinstance(command, WorkerCommand) or command.job_types is None:
        return True
    return job.job_type in command.job_types


def _change_status(job: Job, command: ChangeStatus, now: Instant, new_id: NewId) -> Decision:
    check_attempt(job, command.attempt)
    if job.status in TERMINAL:
        if job.outcome_digest == outcome_digest(command):
            return Decision(job=job, changed=False)
        raise JobTerminal(job.id, job.status, command.target.value)
    if command.expected_version is not None and command.expected_version != job.version:
        raise VersionMismatch(job.id, job.version)
    if command.target is JobStatus.PROCESSING:
        return _repeat_start(job, command) if job.leased else _start(job, command, now)
    if command.target not in TRANSITIONS[job.status]:
        raise illegal_transition(job, command.target.value)
    reported = _reported(job, command.progress, command.progress_message)
    decision = finish(
        reported,
        command.target,
        payloads=Payloads(result=command.result, error_details=command.error_details),
        error=command.error,
        actor=command.worker_id or job.worker_id or "worker",
        now=now,
        digest=outcome_digest(command),
    )
    if not command.assets:
        return decision
    return replace(decision, assets=_link_all(job, command.assets, now, new_id))


def _start(job: Job, command: ChangeStatus, now: Instant) -> Decision:
    started = start_attempt(
        job,
        worker_id=command.worker_id,
        lease=command.lease_duration or DEFAULT_START_LEASE,
        actor=command.worker_id or "worker",
        now=now,
    )
    reported = _reported(started.job, command.progress, command.progress_message)
    return started if reported is started.job else replace(started, job=reported)


def _repeat_start(job: Job, command: ChangeStatus) -> Decision:
    """Decide the start of a job that a worker holds: its worker may repeat the call.

    The first response may have been lost. With an expected version it is no repetition.
    """
    repeated = command.expected_version is None and command.worker_id
    if not repeated or command.worker_id != job.worker_id:
        raise illegal_transition(job, command.target.value)
    return Decision(job=job, changed=False)


def _report(job: Job, command: Report, now: Instant) -> Decision:
    if job.status in TERMINAL and command.attempt in (None, job.attempt):
        return Decision(job=job, changed=False, applied=False)
    check_attempt(job, command.attempt)
    if job.status is not JobStatus.PROCESSING:
        raise illegal_transition(job, JobStatus.PROCESSING.value)
    lease = job.lease_duration
    expire_time = job.lease_expire_time if lease is None else Instant(now + lease)
    after = _reported(job, command.progress, command.progress_message)
    renewed = replace(after, lease_expire_time=expire_time)
    if (after.progress, after.progress_message) != (job.progress, job.progress_message):
        return Decision(job=with_news(renewed, now))
    return Decision(job=renewed, changed=False, renewed=lease is not None)


def _reported(job: Job, progress: int | None, message: str | None) -> Job:
    """Return the job with a report applied. Progress that is lower than before stays as it was."""
    if progress is None and message is None:
        return job
    return replace(
        job,
        progress=max(job.progress, progress or 0),
        progress_message=job.progress_message if message is None else message,
    )


def _link_asset(
    job: Job, command: LinkAsset, linked: Asset | None, now: Instant, new_id: NewId
) -> Decision:
    if linked is not None and command.attempt in (None, job.attempt):
        # A retry gets the same answer, whatever happened to the job since.
        if linked.link != command.link:
            raise RequestIdReused(command.request_id, "Asset", linked.id)
        return Decision(job=job, changed=False, assets=(linked,))
    check_attempt(job, command.attempt)
    if job.status in TERMINAL:
        raise JobTerminal(job.id, job.status, JobStatus.PROCESSING.value)
    if job.status is not JobStatus.PROCESSING:
        raise illegal_transition(job, JobStatus.PROCESSING.value)
    assets = _link_all(job, (command.link,), now, new_id, command.request_id)
    return Decision(job=with_news(job, now), assets=assets)


def _delete(job: Job, command: Delete, now: Instant) -> Decision:
    if job.user_id != command.user_id:
        raise JobNotFound(job.id)
    if job.status not in TERMINAL:
        raise illegal_transition(job, "DELETED")
    return Decision(job=_next_version(job, now), deleted=True)


def _purge(job: Job, command: Purge, now: Instant) -> Decision:
    if job.complete_time is None or job.complete_time + command.age > now:
        return Decision(job=job, changed=False)
    return Decision(job=_next_version(job, now), deleted=True)


def _next_version(job: Job, now: Instant) -> Job:
    return replace(job, update_time=now, version=job.version + 1)


def _link_all(
    job: Job, links: tuple[AssetLink, ...], now: Instant, new_id: NewId, request_id: str = ""
) -> tuple[Asset, ...]:
    return tuple(
        Asset(
            id=AssetId(new_id()),
            job_id=job.id,
            link=link,
            create_time=now,
            request_id=request_id,
        )
        for link in links
    )


def outcome_digest(command: ChangeStatus) -> bytes:
    """Return a digest of the content of a terminal report: 16 bytes, equal for equal content.

    The content is the outcome that it reports, without its sender and preconditions
    (`worker_id`, `attempt`, `expected_version`).

    The definition never changes: calls that are retried across an upgrade would be refused.
    """
    error = command.error
    parts: list[str | bytes | int | None] = [
        command.target.value,
        command.progress,
        command.progress_message,
        command.result,
        *((error.reason, error.message) if error else (None, None)),
        command.error_details,
    ]
    for link in command.assets:
        parts += [link.asset_type, link.url, link.storage_path, link.file_size]
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else b"" if part is None else str(part).encode()
        # The length separates adjacent parts; -1 distinguishes an absent part from an empty one.
        digest.update(b"%d:" % (-1 if part is None else len(data)))
        digest.update(data)
    return digest.digest()
