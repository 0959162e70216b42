"""Decides what each command does to its job.

Pure: the time and the source of new ids are passed in, and nothing is read or stored.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import assert_never

from msgspec.structs import replace

from jobledger_server.domain.assets import link
from jobledger_server.domain.children import Children
from jobledger_server.domain.commands import (
    DEFAULT_START_LEASE,
    AppendOutput,
    Cancel,
    ChangeStatus,
    Create,
    Delete,
    Expire,
    JobCommand,
    LinkAsset,
    NewGroup,
    PassOn,
    Purge,
    Release,
    Report,
    Seal,
    Update,
    WorkerCommand,
)
from jobledger_server.domain.errors import (
    ConcurrencyLimitReached,
    IsAGroup,
    JobInGroup,
    JobNotDue,
    JobNotFound,
    JobTerminal,
    LeaseLost,
    LimitExceeded,
    OutputGap,
    Paused,
    PhaseUnknown,
    RequestIdReused,
    UniqueKeyTaken,
    VersionMismatch,
)
from jobledger_server.domain.groups import (
    cancel_group,
    check_level,
    expire_group,
    level_in,
    pass_on,
    seal,
)
from jobledger_server.domain.job import (
    NO_PAYLOADS,
    Asset,
    AttemptOutcome,
    Instant,
    Job,
    JobId,
    JobStatus,
    Micros,
    Payload,
    Payloads,
    Phase,
    UnknownPhase,
    content_of,
)
from jobledger_server.domain.leases import (
    backoff,
    cancel,
    cancels,
    check_attempt,
    expire,
    has_attempts_left,
    release,
    renewed_by_output,
)
from jobledger_server.domain.limits import DEFAULT_JOB_OUTPUT_BYTES, MAX_OUTPUT_STREAMS
from jobledger_server.domain.output import EMPTY, NO_TAILS, OutputPiece, Tails, has_room
from jobledger_server.domain.queues import NO_LIMITS, Limits
from jobledger_server.domain.state_machine import (
    TERMINAL,
    TRANSITIONS,
    Decision,
    awaits_worker,
    due_time,
    finish,
    illegal_transition,
    requeue,
    start_attempt,
    with_news,
)
from jobledger_server.domain.type_defaults import (
    NO_DEFAULTS,
    TypeDefaults,
    says_the_same,
    with_defaults,
)
from jobledger_server.domain.updates import update

NewId = Callable[[], str]
"""Returns a new UUIDv7, greater than the previous one."""

_NONE: Mapping[str, Asset] = {}


Created = tuple[Job, Payload | None]
"""A job and its parameters."""


def create(
    found: Created | None,
    command: Create,
    *,
    now: Instant,
    new_id: NewId,
    active: Job | None = None,
    full: bool = False,
    defaults: TypeDefaults = NO_DEFAULTS,
    group: Job | None = None,
    siblings: int = 0,
) -> Decision:
    """Decide a creation.

    Args:
        found: The rerun of the same origin, or the owner's job with the same request id,
            if there is one.
        command: The command.
        now: The database server's time.
        new_id: Returns new ids.
        active: The owner's job of the same type and unique key that is not terminal, if there is
            one.
        full: Whether the concurrency key is probably at its limit. The job is blocked at once
            then: a claim would only pass over it.
        defaults: Those of its type.
        group: The job with the command's `group_id`, if it names one that exists.
        siblings: How many jobs this commit adds to that group already.

    Raises:
        RequestIdReused: A job was created with that request id and other content.
        UniqueKeyTaken: Another job has the unique key.
        DomainError: The job cannot belong to that group.
    """
    if found is not None:
        existing, parameters = found
        origin = existing.origin_job_id
        if origin is not None and origin == command.origin_job_id:
            return Decision(job=existing, changed=False)
        same = (
            origin == command.origin_job_id
            and parameters == command.parameters
            and says_the_same(existing, command)
            and _has_time_of(existing, command)
            and _has_place_of(existing, command)
        )
        if not same:
            raise RequestIdReused(command.request_id, "Job", existing.id)
        return Decision(job=existing, changed=False)
    if active is not None:
        if command.return_existing:
            return Decision(job=active, changed=False)
        raise UniqueKeyTaken(command.unique_key, active.id)
    level = 1
    if command.group_id is not None:
        level = level_in(group, owner=command.user_id, group_id=command.group_id, more=siblings)
    if command.origin_job_id is None:  # a rerun has what its origin stores
        command = with_defaults(command, defaults)
    if command.group is not None:
        return _create_group(command, command.group, level, now, new_id)
    phase = Phase.BLOCKED if full else Phase.READY
    schedule_time = _schedule_time(command, now)
    if schedule_time is not None and schedule_time > now:
        phase = Phase.SCHEDULED
    job = _new_job(
        command,
        now,
        new_id,
        phase=phase,
        schedule_time=schedule_time,
        expire_time=queue_expire_time(schedule_time, command.queue_timeout, now),
    )
    return Decision(job=job, payloads=Payloads(parameters=command.parameters))


def _create_group(
    command: Create, options: NewGroup, level: int, now: Instant, new_id: NewId
) -> Decision:
    check_level(level)
    # A sealed one has its children from the same commit, and ends with them.
    expire_time = None if options.sealed else queue_expire_time(None, command.queue_timeout, now)
    children = Children(level=level, fail_fast=options.fail_fast, sealed=options.sealed)
    job = _new_job(command, now, new_id, phase=Phase.WAITING, expire_time=expire_time)
    return Decision(
        job=replace(job, children=children), payloads=Payloads(parameters=command.parameters)
    )


def _new_job(
    command: Create,
    now: Instant,
    new_id: NewId,
    *,
    phase: Phase,
    expire_time: Instant | None,
    schedule_time: Instant | None = None,
) -> Job:
    return Job(
        id=JobId(new_id()),
        parameters_bytes=len(command.parameters or b""),
        request_id=command.request_id,
        traceparent=command.traceparent,
        phase=phase,
        origin_job_id=command.origin_job_id,
        group_id=command.group_id,
        schedule_time=schedule_time,
        queue_expire_time=expire_time,
        create_time=now,
        update_time=now,
        **content_of(command),
    )


def _has_place_of(job: Job, command: Create) -> bool:
    """Whether the command creates a job of that group, or such a group."""
    fail_fast = None if job.children is None else job.children.fail_fast
    asked = None if command.group is None else command.group.fail_fast
    return (job.group_id, fail_fast) == (command.group_id, asked)


def _has_time_of(job: Job, command: Create) -> bool:
    """Whether the command creates a job for that time. Which it was is lost by an update."""
    return job.updates > 0 or job.schedule_time == _schedule_time(command, job.create_time)


def _schedule_time(command: Create, create_time: Instant) -> Instant | None:
    """Return before which time a job is not claimed that is created by this command then."""
    if command.delay is None:
        return command.schedule_time
    return Instant(create_time + command.delay)


def queue_expire_time(
    schedule_time: Instant | None, queue_timeout: Micros, create_time: Instant
) -> Instant:
    """Return when a job fails that was created then, unless a worker has started it."""
    return Instant(max(create_time, schedule_time or 0) + queue_timeout)


def decide(
    job: Job | None,
    command: JobCommand,
    *,
    now: Instant,
    new_id: NewId,
    linked: Asset | None = None,
    named: Mapping[str, Asset] = _NONE,
    resumed_at: Instant | None = None,
    limits: Limits = NO_LIMITS,
    full: bool = False,
    tails: Tails = NO_TAILS,
    output_bytes: int = DEFAULT_JOB_OUTPUT_BYTES,
) -> Decision:
    """Decide a command.

    A job in a phase of newer servers is left alone: this server knows neither what may end it nor
    how it is counted.

    Args:
        job: The job as it is now, or None if it does not exist.
        command: The command.
        now: The database server's time.
        new_id: Returns new ids.
        linked: The job's asset with the request id of a LinkAsset, if there is one.
        named: The job's assets that have the names of those that the command links, by their
            names.
        resumed_at: When the service's last outage ended, if it had one.
        limits: What an operator lets the job do.
        full: Whether its concurrency key is probably at its limit.
        tails: The streams of its output, if the command appends to one.
        output_bytes: How much output is stored of a job.

    Raises:
        DomainError: The command is refused.
    """
    if job is None or not _may_work_on(job, command):
        raise JobNotFound(command.job_id)
    if job.children is not None and isinstance(command, WorkerCommand):
        raise IsAGroup(job.id)
    match command:
        case ChangeStatus():
            decision = _change_status(job, command, named, limits, now=now, new_id=new_id)
        case Report():
            decision = _report(job, command, now)
        case LinkAsset():
            decision = _link_asset(job, command, linked, named, now=now, new_id=new_id)
        case AppendOutput():
            decision = _append_output(job, command, tails, now, most=output_bytes)
        case Release():
            decision = release(job, command, now)
        case Cancel():
            decision = _cancel(job, command, now)
        case Update():
            decision = update(job, command, now, full=full)
        case Seal():
            decision = seal(job, command, now)
        case PassOn():
            decision = pass_on(job, command, now)
        case Expire():
            decision = _expire(job, now, resumed_at)
        case Delete():
            decision = _delete(job, command, now)
        case Purge():
            decision = _purge(job, command, now)
        case _:
            assert_never(command)
    return _if_phase_known(job, command, decision)


def _if_phase_known(job: Job, command: JobCommand, decision: Decision) -> Decision:
    """Leave a job alone that is in a phase of newer servers."""
    if isinstance(job.phase, UnknownPhase) and (
        decision.changed or decision.renewed or decision.output is not None
    ):
        if isinstance(command, Expire):
            return Decision(job=job, changed=False)
        raise PhaseUnknown(job.id)
    return decision


def _may_work_on(job: Job, command: JobCommand) -> bool:
    """Whether the command may work on jobs of this job's type."""
    if not isinstance(command, WorkerCommand) or command.job_types is None:
        return True
    return job.job_type in command.job_types


def _cancel(job: Job, command: Cancel, now: Instant) -> Decision:
    if not cancels(job, command):
        return Decision(job=job, changed=False)
    if job.children is not None:
        return cancel_group(job, job.children, command, now)
    return cancel(job, command, now)


def _expire(job: Job, now: Instant, resumed_at: Instant | None) -> Decision:
    if job.children is not None:
        return expire_group(job, job.children, now)
    return expire(job, now, resumed_at)


def _change_status(
    job: Job,
    command: ChangeStatus,
    named: Mapping[str, Asset],
    limits: Limits,
    *,
    now: Instant,
    new_id: NewId,
) -> Decision:
    if _repeats_retry(job, command):
        return Decision(job=job, changed=False)
    check_attempt(job, command.attempt)
    if job.status in TERMINAL:
        if job.outcome_digest == outcome_digest(command):
            return Decision(job=job, changed=False)
        raise JobTerminal(job.id, job.status, command.target.value)
    if command.expected_version is not None and command.expected_version != job.version:
        raise VersionMismatch(job.id, job.version)
    if command.target is JobStatus.PROCESSING:
        return _repeat_start(job, command) if job.leased else _start(job, command, limits, now)
    if command.target not in TRANSITIONS[job.status]:
        raise illegal_transition(job, command.target.value)
    if command.retryable and not job.leased:
        raise LeaseLost(job.id, job.attempt)  # the attempt ended before, and the job goes on
    reported = _reported(job, command.progress, command.progress_message)
    linked = None
    if command.assets:
        linked = link(reported, command.assets, named, now=now, new_id=new_id)
        reported = linked.job
    if _may_retry(job, command):
        pause = backoff(job) if command.retry_delay is None else command.retry_delay
        retried = AttemptOutcome.RETRIED
        decision = requeue(reported, retried, error=command.error, pause=pause, now=now)
    else:
        decision = finish(
            reported,
            command.target,
            payloads=Payloads(result=command.result, error_details=command.error_details),
            error=command.error,
            actor=command.worker_id or job.worker_id or "worker",
            now=now,
            digest=outcome_digest(command),
        )
    if linked is None:
        return decision
    return replace(decision, assets=linked.added, updated=linked.updated)


def _may_retry(job: Job, command: ChangeStatus) -> bool:
    """Whether the job waits for another attempt after this end of the current one."""
    cancelled = job.cancel_request_time is not None
    return command.retryable and not cancelled and has_attempts_left(job)


def _repeats_retry(job: Job, command: ChangeStatus) -> bool:
    """Whether the command repeats the retryable failure after which the job waits.

    The first response may have been lost. After the next start it is refused: the attempt differs.
    """
    return (
        command.retryable
        and awaits_worker(job)
        and command.attempt in (None, job.attempt)
        and job.last_error is not None
        and job.last_error == command.error
    )


def _start(job: Job, command: ChangeStatus, limits: Limits, now: Instant) -> Decision:
    due = due_time(job)
    if due is not None and due > now:
        raise JobNotDue(job.id, due)
    if limits.type_paused:
        raise Paused(job.id, job.job_type)
    if limits.key.paused:
        raise Paused(job.id, job.job_type, job.concurrency_key)
    if not limits.key.free:
        limit = limits.key.max_running or 0
        raise ConcurrencyLimitReached(job.id, job.concurrency_key, limit)
    started = start_attempt(
        job,
        worker_id=command.worker_id,
        lease=command.lease_duration or DEFAULT_START_LEASE,
        actor=command.worker_id or "worker",
        now=now,
        by_id=True,
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
    progress, message = _progress_after(job, command.progress, command.progress_message)
    said = (progress, message) != (job.progress, job.progress_message)
    late_retry = 0 < command.number <= job.report_number
    number = max(job.report_number, command.number)
    checkpoint = command.checkpoint
    if late_retry or not (said or checkpoint is not None):
        # With its number: a retry of an earlier report may arrive after it.
        renewed = replace(job, lease_expire_time=expire_time, report_number=number)
        to_write = lease is not None or number > job.report_number
        return Decision(job=renewed, changed=False, renewed=to_write)
    after = replace(
        job,
        lease_expire_time=expire_time,
        progress=progress,
        progress_message=message,
        report_number=number,
        checkpoint_bytes=job.checkpoint_bytes if checkpoint is None else len(checkpoint),
    )
    payloads = NO_PAYLOADS if checkpoint is None else Payloads(checkpoint=checkpoint)
    return Decision(job=with_news(after, now), payloads=payloads)


def _reported(job: Job, progress: int | None, message: str | None) -> Job:
    """Return the job with a report applied."""
    if progress is None and message is None:
        return job
    progress, message = _progress_after(job, progress, message)
    return replace(job, progress=progress, progress_message=message)


def _progress_after(job: Job, progress: int | None, message: str | None) -> tuple[int, str]:
    """Return a job's progress after a report. If the reported one is lower, it stays as it was."""
    return max(job.progress, progress or 0), job.progress_message if message is None else message


def _link_asset(
    job: Job,
    command: LinkAsset,
    linked: Asset | None,
    named: Mapping[str, Asset],
    *,
    now: Instant,
    new_id: NewId,
) -> Decision:
    if command.attempt in (None, job.attempt):
        # A retry gets the same answer, whatever happened to the job since.
        if linked is not None and linked.link != command.link:
            raise RequestIdReused(command.request_id, "Asset", linked.id)
        existing = linked or named.get(command.link.name)
        if existing is not None and existing.link == command.link:
            return Decision(job=job, changed=False, asset=existing)
    check_attempt(job, command.attempt)
    if job.status in TERMINAL:
        raise JobTerminal(job.id, job.status, JobStatus.PROCESSING.value)
    if job.status is not JobStatus.PROCESSING:
        raise illegal_transition(job, JobStatus.PROCESSING.value)
    linking = link(
        job, (command.link,), named, now=now, new_id=new_id, request_id=command.request_id
    )
    return Decision(
        job=with_news(linking.job, now),
        asset=linking.found[command.link.name],
        assets=linking.added,
        updated=linking.updated,
    )


def _append_output(
    job: Job, command: AppendOutput, tails: Tails, now: Instant, *, most: int
) -> Decision:
    tail = tails.get(command.stream, EMPTY)
    if command.attempt == tail.attempt and 0 < command.number <= tail.number:
        # A retry gets the same answer, whatever happened to the job since.
        return Decision(job=job, changed=False, next_offset=tail.end)
    check_attempt(job, command.attempt)
    if job.status in TERMINAL:
        raise JobTerminal(job.id, job.status, JobStatus.PROCESSING.value)
    if job.status is not JobStatus.PROCESSING:
        raise illegal_transition(job, JobStatus.PROCESSING.value)
    # Those before it may be sent again. After a later one they would be taken for repetitions.
    number = tail.number if command.attempt == tail.attempt else 0
    if command.number > number + 1:
        raise OutputGap(job.id, command.stream, number + 1)
    streams = job.output_streams
    if command.stream not in streams:
        if len(streams) == MAX_OUTPUT_STREAMS:
            raise LimitExceeded("output_streams_per_job", MAX_OUTPUT_STREAMS, scope="request")
        streams = {**streams, command.stream: command.content_type}
    if job.refuse_output and not has_room(tails, len(command.data), most):
        raise LimitExceeded("output_bytes_per_job", most, scope="request")
    number = command.number or number
    piece = OutputPiece(job.id, command.stream, tail.end, command.attempt, number, command.data)
    after = renewed_by_output(replace(job, output_streams=streams), now)
    return Decision(
        job=after,
        changed=False,
        renewed=after != job,
        output=piece,
        next_offset=piece.end,
    )


def _delete(job: Job, command: Delete, now: Instant) -> Decision:
    if job.user_id != command.user_id:
        raise JobNotFound(job.id)
    if job.status not in TERMINAL:
        raise illegal_transition(job, "DELETED")
    if job.group_id is not None and not command.with_group:
        raise JobInGroup(job.id, job.group_id)
    if job.children is not None and not command.childless:
        return Decision(job=job, changed=False)
    return Decision(job=_next_version(job, now), deleted=True)


def _purge(job: Job, command: Purge, now: Instant) -> Decision:
    age = command.age if job.retention is None else job.retention
    if job.complete_time is None:
        return Decision(job=job, changed=False)
    if job.group_id is not None:
        if not command.with_group:
            return Decision(job=job, changed=False)
    elif age is None or job.complete_time + age > now:
        return Decision(job=job, changed=False)
    if job.children is not None and not command.childless:
        return Decision(job=job, changed=False)
    return Decision(job=_next_version(job, now), deleted=True)


def _next_version(job: Job, now: Instant) -> Job:
    return replace(job, update_time=now, version=job.version + 1)


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
    for each in command.assets:
        parts += [each.asset_type, each.url, each.storage_path, each.file_size]
        parts += [each.name, each.sha256, each.etag]
    content: list[bytes] = []
    for part in parts:
        data = part if isinstance(part, bytes) else b"" if part is None else str(part).encode()
        # The length separates adjacent parts; -1 distinguishes an absent part from an empty one.
        content += [b"%d:" % (-1 if part is None else len(data)), data]
    # At once: hashlib lets other threads run at each update after one of 2 KiB, and waits for them.
    # That would be 10,000 times for 700 assets.
    return hashlib.blake2b(b"".join(content), digest_size=16).digest()
