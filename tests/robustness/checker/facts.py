"""From messages on the wire to facts of the history."""

import hashlib
from typing import Any

from jobledger.v1 import job_pb2
from tests.robustness.checker.history import Message, Snapshot, Step

_NAMES = {number: name.removeprefix("JOB_STATUS_") for name, number in job_pb2.JobStatus.items()}


def snapshot(job: Any) -> Snapshot:
    # A renewal of the lease is no change, so a version does not name the lease's end.
    named = job_pb2.Job()
    named.CopyFrom(job)
    named.ClearField("lease_expire_time")
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
            job=None if response.heartbeat else snapshot(response.job),
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
        )
        for change in response.changes
    ]
    if changes and not response.synced:
        return changes
    return [*changes, Message(at=at, synced=response.synced, heartbeat=response.heartbeat)]
