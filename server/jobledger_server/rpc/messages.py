"""Converts the domain's values to messages.

Jobs are converted to bytes, because their payloads are stored as bytes; see encoding.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from jobledger.v1 import asset_pb2, job_pb2, job_service_pb2, worker_service_pb2
from jobledger_server.domain.children import Children
from jobledger_server.domain.job import (
    CONTENT,
    MICROS_PER_SECOND,
    NO_PAYLOADS,
    Asset,
    Attempt,
    AttemptOutcome,
    Instant,
    Job,
    JobError,
    JobId,
    JobStatus,
    Micros,
    Payloads,
    Transition,
)
from jobledger_server.domain.state_machine import Decision
from jobledger_server.rpc.encoding import encoded_field
from jobledger_server.store import Change
from jobledger_server.watch.held_jobs import Signal

STATUSES = {s: job_pb2.JobStatus.Value(f"JOB_STATUS_{s.value}") for s in JobStatus}
"""The statuses as messages have them."""

_SHOWN = tuple(
    field
    for field in job_pb2.Job.DESCRIPTOR.fields
    if field.name in CONTENT and field.name not in ("user_id", "job_type", "fairness_key")
)
_PLAIN = tuple(field.name for field in _SHOWN if field.message_type is None)
_SPANS = tuple(field.name for field in _SHOWN if field.message_type is Duration.DESCRIPTOR)
_plain = attrgetter(*_PLAIN)

_WITHOUT_PAYLOADS: Mapping[int, Payloads] = {}
_WITHOUT_ASSETS: Mapping[JobId, Sequence[asset_pb2.Asset]] = {}

_OUTCOMES = {o: job_pb2.AttemptOutcome.Value(f"ATTEMPT_OUTCOME_{o.value}") for o in AttemptOutcome}


def job_bytes(job: Job, payloads: Payloads = NO_PAYLOADS, *, to_owner: bool = False) -> bytes:
    """Serialize a job, in the view BASIC if no payloads are given.

    Its request id is sent to its owner and to operators alone.
    """
    message = job_pb2.Job()
    message.id = job.id
    message.user_id = job.user_id
    message.job_type = job.job_type
    message.status = STATUSES[job.status]
    message.progress = job.progress
    message.progress_message = job.progress_message
    if job.labels:
        message.labels.update(job.labels)
    message.attempt = job.attempt
    message.worker_id = job.worker_id
    message.held = job.leased
    message.cancelled = job.cancelled
    message.cancel_reason = job.cancel_reason
    message.version = job.version
    message.traceparent = job.traceparent
    message.fairness_key = job.tenant
    _set_content(message, job)
    if to_owner:
        message.request_id = job.request_id
    if job.origin_job_id is not None:
        message.origin_job_id = job.origin_job_id
    if job.group_id is not None:
        message.group_id = job.group_id
    if job.children is not None:
        message.group.CopyFrom(_group(job.children))
    _set_time(message.create_time, job.create_time)
    _set_time(message.update_time, job.update_time)
    for field, instant in (
        ("start_time", job.start_time),
        ("complete_time", job.complete_time),
        ("lease_expire_time", job.lease_expire_time),
        ("queue_expire_time", _queue_expire_time(job)),
        ("run_expire_time", job.run_expire_time),
        ("progress_time", job.progress_time),
        ("cancel_request_time", job.cancel_request_time),
        ("schedule_time", job.schedule_time if job.retry_time is None else job.retry_time),
    ):
        if instant is not None:  # to touch a field costs as much as to set it
            _set_time(getattr(message, field), instant)
    for name, content_type in job.output_streams.items():
        message.output_streams.add(name=name, content_type=content_type)
    if job.last_error is not None:
        message.last_error.CopyFrom(_error_message(job.last_error))
    parts = [
        _retry_policy(
            job.attempts_allowed, job.initial_backoff, job.max_backoff, job.backoff_multiplier
        )
    ]
    if job.error is not None:
        error = _error_message(job.error)
        if payloads.error_details is None:
            message.error.CopyFrom(error)
        else:
            details = encoded_field(job_pb2.JobError, "details", payloads.error_details)
            parts.append(encoded_field(job_pb2.Job, "error", error.SerializeToString() + details))
    if payloads.parameters is not None:
        parts.append(encoded_field(job_pb2.Job, "parameters", payloads.parameters))
    if payloads.checkpoint is not None:
        parts.append(encoded_field(job_pb2.Job, "checkpoint", payloads.checkpoint))
    if payloads.result is not None:
        parts.append(encoded_field(job_pb2.Job, "result", payloads.result))
    return b"".join((message.SerializeToString(), *parts))


def _queue_expire_time(job: Job) -> Instant | None:
    # That of a sealed group is when another server goes on to cancel its children.
    return None if job.children is not None and job.children.sealed else job.queue_expire_time


def _group(children: Children) -> job_pb2.Group:
    return job_pb2.Group(
        total=children.total,
        queued=children.queued,
        processing=children.processing,
        completed=children.completed,
        partial=children.partial,
        failed=children.failed,
        sealed=children.sealed,
        fail_fast=children.fail_fast,
    )


def _set_content(message: job_pb2.Job, job: Job) -> None:
    """Set what a job has from its creation on, where its message has a field of the same name."""
    for name, value in zip(_PLAIN, _plain(job), strict=True):
        if value:  # few have one
            setattr(message, name, value)
    for name in _SPANS:
        span = getattr(job, name)
        if span is not None:
            getattr(message, name).FromMicroseconds(span)


@lru_cache(maxsize=256)  # a service's jobs have few different ones
def _retry_policy(
    max_attempts: int, initial_backoff: Micros, max_backoff: Micros, multiplier: float
) -> bytes:
    """Serialize a job's field `retry_policy`."""
    policy = job_pb2.RetryPolicy(max_attempts=max_attempts, backoff_multiplier=multiplier)
    policy.initial_backoff.FromMicroseconds(initial_backoff)
    policy.max_backoff.FromMicroseconds(max_backoff)
    return encoded_field(job_pb2.Job, "retry_policy", policy.SerializeToString())


def job_response(
    response: type[Message],
    job: Job,
    payloads: Payloads = NO_PAYLOADS,
    *,
    to_owner: bool = False,
) -> bytes:
    """Serialize a response with this `job` and nothing else. See `job_bytes`."""
    return encoded_field(response, "job", job_bytes(job, payloads, to_owner=to_owner))


def jobs_response(response: type[Message], jobs: Iterable[bytes]) -> bytes:
    """Serialize a response with these serialized `jobs`."""
    return b"".join([encoded_field(response, "jobs", job) for job in jobs])


def asset_message(asset: Asset, user_id: str) -> asset_pb2.Asset:
    """Make the message of an asset of `user_id`, who owns its job."""
    link = asset.link
    return asset_pb2.Asset(
        id=asset.id,
        job_id=asset.job_id,
        user_id=user_id,
        asset_type=link.asset_type,
        url=link.url,
        storage_path=link.storage_path,
        file_size=link.file_size,
        create_time=time_message(asset.create_time),
        name=link.name,
        sha256=link.sha256,
        etag=link.etag,
    )


def transition_message(transition: Transition) -> job_pb2.JobTransition:
    return job_pb2.JobTransition(
        job_id=transition.job_id,
        from_status=STATUSES[transition.from_status],
        to_status=STATUSES[transition.to_status],
        version=transition.version,
        attempt=transition.attempt,
        actor=transition.actor,
        reason=transition.reason,
        time=time_message(transition.time),
    )


def attempt_message(attempt: Attempt) -> job_pb2.Attempt:
    message = job_pb2.Attempt(
        number=attempt.number,
        worker_id=attempt.worker_id,
        start_time=time_message(attempt.start_time),
        progress=attempt.progress,
        end_time=time_message(attempt.end_time),
    )
    if attempt.error is not None:
        message.error.CopyFrom(_error_message(attempt.error))
    if attempt.outcome is not None:
        message.outcome = _OUTCOMES[attempt.outcome]
    return message


def _error_message(error: JobError) -> job_pb2.JobError:
    return job_pb2.JobError(reason=error.reason, message=error.message)


WATCH_HEARTBEAT = job_service_pb2.WatchJobResponse(heartbeat=True).SerializeToString()


def watch_message(
    job: Job,
    transitions: Sequence[Transition],
    payloads: Payloads = NO_PAYLOADS,
    *,
    to_owner: bool,
) -> bytes:
    response = job_service_pb2.WatchJobResponse
    rest = response(transitions=map(transition_message, transitions))
    return job_response(response, job, payloads, to_owner=to_owner) + rest.SerializeToString()


def changes_message(
    changes: Iterable[Change],
    resume_token: str,
    payloads: Mapping[int, Payloads] = _WITHOUT_PAYLOADS,
    assets: Mapping[JobId, Sequence[asset_pb2.Asset]] = _WITHOUT_ASSETS,
    *,
    to_owner: bool,
) -> bytes:
    """Serialize changes.

    Args:
        changes: The changes.
        resume_token: The token to resume from after them.
        payloads: The payloads that are sent with some, by their sequence numbers.
        assets: The assets of the deleted jobs, by the jobs' ids.
        to_owner: See `job_bytes`.
    """
    response = job_service_pb2.WatchJobsResponse
    encoded = b"".join(
        encoded_field(
            job_service_pb2.JobChanges,
            "changes",
            _change_bytes(
                change,
                payloads.get(change.seq, NO_PAYLOADS),
                assets.get(change.job.id, ()) if change.deleted else (),
                to_owner=to_owner,
            ),
        )
        for change in changes
    )
    rest = response(resume_token=resume_token).SerializeToString()
    return encoded_field(response, "changes", encoded) + rest


def _change_bytes(
    change: Change, payloads: Payloads, assets: Sequence[asset_pb2.Asset], *, to_owner: bool
) -> bytes:
    job = change.job
    rest = job_service_pb2.JobChange(
        transitions=map(transition_message, change.transitions),
        deleted=change.deleted,
        deleted_assets=assets,
    )
    if change.deleted:
        data = _deleted_message(job).SerializeToString()
    else:
        data = job_bytes(job, payloads, to_owner=to_owner)
    return encoded_field(job_service_pb2.JobChange, "job", data) + rest.SerializeToString()


def result_message(decision: Decision) -> worker_service_pb2.UpdateResult:
    """Make the result of an update, with the asset that it linked."""
    job, asset = decision.job, decision.asset
    return worker_service_pb2.UpdateResult(
        job_id=job.id,
        version=job.version,
        applied=decision.applied,
        asset=None if asset is None else asset_message(asset, job.user_id),
        next_offset=decision.next_offset,
    )


def signal_message(signal: Signal) -> worker_service_pb2.JobSignal:
    message = worker_service_pb2.JobSignal(job_id=signal.job_id, attempt=signal.attempt)
    if signal.lost:
        message.lease_lost.SetInParent()
    else:
        message.cancel_requested.reason = signal.cancel_reason
        message.cancel_requested.SetInParent()
    return message


def progress_response(decision: Decision) -> bytes:
    response = worker_service_pb2.UpdateProgressResponse
    rest = response(
        applied=decision.applied,
        cancel_requested=decision.job.cancel_request_time is not None,
    )
    return job_response(response, decision.job) + rest.SerializeToString()


def _deleted_message(job: Job) -> job_pb2.Job:
    """Make the message of a deleted job: without its payloads, whether or not they are known."""
    return job_pb2.Job(
        id=job.id,
        user_id=job.user_id,
        job_type=job.job_type,
        status=STATUSES[job.status],
        labels=job.labels,
        create_time=time_message(job.create_time),
        update_time=time_message(job.update_time),
        version=job.version,
        group_id=job.group_id or "",
    )


def time_message(instant: Instant | None) -> Timestamp | None:
    """Make the message of a time; None leaves a field unset."""
    if instant is None:
        return None
    time = Timestamp()
    _set_time(time, instant)
    return time


def _set_time(time: Timestamp, instant: Instant) -> None:
    time.seconds, micros = divmod(instant, MICROS_PER_SECOND)
    time.nanos = micros * 1000
