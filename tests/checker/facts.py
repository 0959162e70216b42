"""From messages on the wire to facts of the history."""

import hashlib
from dataclasses import fields
from typing import Any

from jobledger.v1 import job_pb2
from tests.checker.history import Attempt, Group, Message, Piece, Snapshot, Step
from tests.checker.policies import INITIAL_BACKOFF

_NAMES = {number: name.removeprefix("JOB_STATUS_") for name, number in job_pb2.JobStatus.items()}
_OUTCOMES = {
    number: name.removeprefix("ATTEMPT_OUTCOME_")
    for name, number in job_pb2.AttemptOutcome.items()
    if number
}


def snapshot(job: Any) -> Snapshot:
    # A renewal of the lease is no change, nor is a new stream of output, so a version names
    # neither. Payloads come or not, as the caller asked, and the request id to its owner alone.
    named = job_pb2.Job()
    named.CopyFrom(job)
    for field in (
        "lease_expire_time",
        "output_streams",
        "parameters",
        "checkpoint",
        "result",
        "request_id",
    ):
        named.ClearField(field)
    if named.HasField("error"):
        named.error.ClearField("details")
    whole = named.SerializeToString(deterministic=True)
    return Snapshot(
        job_id=job.id,
        version=job.version,
        status=_NAMES[job.status],
        attempt=job.attempt,
        user_id=job.user_id,
        job_type=job.job_type,
        content=hashlib.blake2b(whole, digest_size=8).digest(),
        message=job.progress_message,
        progress=job.progress,
        worker=job.worker_id,
        held=job.held,
        reason=job.error.reason,
        cancelled=job.cancelled,
        refuses_output=job.refuse_output,
        parameters=mark_of(job, "parameters"),
        result=mark_of(job, "result"),
        details=mark_of(job.error, "details"),
        checkpoint=mark_of(job, "checkpoint"),
        due=job.schedule_time.ToMicroseconds(),
        origin=job.origin_job_id,
        unique=job.unique_key,
        own_policy=job.retry_policy.initial_backoff.ToMicroseconds() == INITIAL_BACKOFF,
        group_id=job.group_id,
        group=_group(job.group) if job.HasField("group") else None,
    )


def _group(group: Any) -> Group:
    return Group(**{field.name: getattr(group, field.name) for field in fields(Group)})


def mark_of(message: Any, payload: str) -> str:
    """Return the mark in a payload; empty if there is no payload."""
    if not message.HasField(payload):
        return ""
    fields = getattr(message, payload).fields
    return str(fields["mark"].string_value) if "mark" in fields else "a payload without a mark"


def attempt(listed: Any) -> Attempt:
    seconds = None
    if listed.HasField("end_time"):
        seconds = (listed.end_time.ToMicroseconds() - listed.start_time.ToMicroseconds()) / 1e6
    return Attempt(
        number=listed.number,
        worker=listed.worker_id,
        outcome=_OUTCOMES.get(listed.outcome, ""),
        seconds=seconds,
        progress=listed.progress,
        reason=listed.error.reason,
        start=listed.start_time.ToMicroseconds(),
    )


def step(transition: Any) -> Step:
    return Step(
        version=transition.version,
        from_status=_NAMES[transition.from_status],
        to_status=_NAMES[transition.to_status],
        attempt=transition.attempt,
        reason=transition.reason,
    )


def watch_job_messages(response: Any, at: float) -> list[Message]:
    return [
        Message(
            at=at,
            job=snapshot(response.job) if response.HasField("job") else None,
            steps=tuple(map(step, response.transitions)),
            heartbeat=response.heartbeat,
        )
    ]


def watch_jobs_messages(response: Any, at: float) -> list[Message]:
    changes = [
        Message(
            at=at,
            job=snapshot(change.job),
            steps=tuple(map(step, change.transitions)),
            deleted=change.deleted,
            removed=tuple(asset.storage_path for asset in change.deleted_assets),
        )
        for change in response.changes.changes
    ]
    if changes and not response.synced:
        return changes
    return [*changes, Message(at=at, synced=response.synced, heartbeat=response.heartbeat)]


def piece(response: Any, at: float) -> Piece:
    """Return what a message of WatchOutput says, or the answer of ReadOutput."""
    return Piece(
        at=at,
        offset=response.offset,
        data=response.data,
        attempt=response.attempt,
        next_offset=response.next_offset,
        up_to_date=response.up_to_date,
        closed=response.closed,
        truncated_before=response.truncated_before,
    )
