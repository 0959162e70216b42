"""UpdateJob: another priority or time for a job that is not started."""

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from tests.support.rpc_caller import FULL, PROCESSING, QUEUED, Caller, refusal

HOUR = timedelta(hours=1)
LONG_AGO = Timestamp(seconds=1)


def after(delay: timedelta) -> Timestamp:
    """Return the time so long from now."""
    time = Timestamp()
    time.FromDatetime(datetime.now(UTC) + delay)
    return time


def of(job: Any, **fields: Any) -> dict[str, Any]:
    return {"job_id": job.id, "user_id": job.user_id, **fields}


async def claim(call: Caller, **fields: Any) -> list[str]:
    claimed = await call.ClaimJobs(worker_id="w", job_types=["render"], **fields)
    return [job.id for job in claimed.jobs]


async def test_a_job_gets_another_priority_and_another_time_and_keeps_the_rest(
    call: Caller,
) -> None:
    first, second, third = [await call.job(parameters={"n": n}) for n in range(3)]
    updated = (await call.UpdateJob(**of(second, priority=9))).job
    assert (updated.priority, updated.version, updated.status) == (9, 2, QUEUED)
    assert updated.update_time.ToMicroseconds() > updated.create_time.ToMicroseconds()
    assert not updated.HasField("parameters")
    due = after(HOUR)
    waits = (await call.UpdateJob(**of(third, schedule_time=due, priority=0))).job
    assert (waits.schedule_time, waits.priority) == (due, 0)
    assert waits.queue_expire_time.ToMicroseconds() == due.ToMicroseconds() + 7 * 86_400 * 10**6
    read = (await call.GetJob(**of(third))).job
    assert (read.version, read.parameters["n"]) == (2, 2)
    assert await claim(call, max_jobs=5) == [second.id, first.id]
    ready = (await call.UpdateJob(**of(third, schedule_time=LONG_AGO))).job
    assert ready.schedule_time == ready.update_time
    assert await claim(call, max_jobs=5) == [third.id]


async def test_an_update_that_comes_too_late_or_for_another_version_is_refused(
    call: Caller,
) -> None:
    job = await call.job()
    other = await refusal(call.UpdateJob(**of(job, priority=9, expected_version=2)))
    assert (other.code, other.reason) == (StatusCode.ABORTED, "VERSION_MISMATCH")
    assert other.metadata["version"] == "1"
    await call.TransitionJob(job_id=job.id, target_status=PROCESSING, worker_id="w")
    late = await refusal(call.UpdateJob(**of(job, priority=9)))
    assert (late.code, late.reason) == (StatusCode.FAILED_PRECONDITION, "JOB_STARTED")
    assert late.metadata == {"job_id": job.id, "current": "PROCESSING"}
    assert late.details["PreconditionFailure"].violations[0].subject == job.id
    await call.ReleaseJob(job_id=job.id, attempt=1)
    released = await refusal(call.UpdateJob(**of(job, schedule_time=after(HOUR))))
    assert released.reason == "JOB_STARTED"
    await call.CancelJob(**of(job))
    ended = await refusal(call.UpdateJob(**of(job, priority=9)))
    assert (ended.code, ended.reason) == (StatusCode.FAILED_PRECONDITION, "JOB_TERMINAL")
    unknown = await refusal(call.UpdateJob(job_id=job.id, user_id="bob", priority=9))
    assert unknown.reason == "JOB_NOT_FOUND"


async def test_watchers_are_sent_an_update_as_a_new_version(call: Caller) -> None:
    """In the view FULL also with the parameters, for it may stand for the creation."""
    feed = call.WatchJobs(user_id="ada", view=FULL)
    while not (await feed.read()).synced:
        pass
    job = await call.job(parameters={"n": 1})
    watch = call.WatchJob(**of(job))
    assert (await watch.read()).job.version == 1
    await call.UpdateJob(**of(job, priority=9))
    message = await watch.read()
    assert (message.job.version, message.job.priority) == (2, 9)
    assert not message.transitions
    seen = []
    while not seen or seen[-1].version < 2:
        seen += [change.job for change in (await feed.read()).changes.changes]
    assert [each.parameters["n"] for each in seen] == [1] * len(seen)
    # A watch that resumes before both is sent the update alone, with all of the job.
    await call.TransitionJob(job_id=job.id, target_status=PROCESSING, worker_id="w")
    started = await watch.read()
    assert [each.version for each in started.transitions] == [3]
