"""Jobs that are scheduled: not claimed before their time, and then at once."""

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tests.support.rpc_caller import PROCESSING, QUEUED, Caller, refusal
from tests.support.standstill import standstill

HOUR = timedelta(hours=1)
SOON = timedelta(seconds=2)
"""Longer than this process may stand still on a busy machine before the job is created."""


def after(delay: timedelta) -> Timestamp:
    """Return the time so long from now."""
    time = Timestamp()
    time.FromDatetime(datetime.now(UTC) + delay)
    return time


def micros(time: Timestamp) -> int:
    return time.ToMicroseconds()


def lateness(job: Any, due: Timestamp) -> float:
    """Return how many seconds after its time a job was started."""
    return (micros(job.start_time) - micros(due)) / 10**6


async def claim(call: Caller, **fields: Any) -> list[Any]:
    return list((await call.ClaimJobs(worker_id="w", job_types=["render"], **fields)).jobs)


async def test_a_scheduled_job_is_claimed_at_its_time_and_not_before(call: Caller) -> None:
    async with standstill() as stood:
        due = after(SOON)
        job = await call.job(schedule_time=due)
        assert (job.status, job.schedule_time) == (QUEUED, due)
        assert micros(job.queue_expire_time) == micros(due) + 7 * 86_400 * 10**6
        later = await call.job(schedule_time=after(HOUR))
        # There is none yet, unless this process has stood still until then.
        claimed_now = await claim(call, max_jobs=5)
        (claimed,) = claimed_now or await claim(call, max_jobs=5, wait=Duration(seconds=20))
    assert claimed.id == job.id
    assert 0 <= lateness(claimed, due) <= 2 + stood.seconds
    assert claimed.schedule_time == due  # its creator's, as it was sent
    assert (await call.GetJob(job_id=later.id, user_id="ada")).job == later


async def test_a_job_that_is_not_due_cannot_be_started_by_its_id(call: Caller) -> None:
    due = after(HOUR)
    job = await call.job(schedule_time=due)
    refused = await refusal(call.TransitionJob(job_id=job.id, target_status=PROCESSING))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "JOB_NOT_DUE")
    assert refused.metadata == {"job_id": job.id, "schedule_time": due.ToJsonString()}
    (violation,) = refused.details["PreconditionFailure"].violations
    assert (violation.type, violation.subject) == ("JOB_NOT_DUE", job.id)
    # Neither can one that waits for its retry.
    running = await call.running()
    await call.ReleaseJob(job_id=running.id, attempt=1, release={"delay": Duration(seconds=3600)})
    refused = await refusal(call.TransitionJob(job_id=running.id, target_status=PROCESSING))
    assert refused.reason == "JOB_NOT_DUE"


async def test_a_delay_counts_from_the_creation_by_the_clock_of_the_service(call: Caller) -> None:
    hour = Duration(seconds=3600)
    for job in (
        await call.job(delay=hour),
        *(
            await call.BatchCreateJobs(
                user_id="ada", requests=[{"job_type": "render", "delay": hour}] * 2
            )
        ).jobs,
    ):
        assert micros(job.schedule_time) - micros(job.create_time) == 3600 * 10**6
        waits = micros(job.queue_expire_time) - micros(job.schedule_time)
        assert waits == 7 * 86_400 * 10**6
    assert not await claim(call, max_jobs=5)


async def test_a_creation_with_a_delay_can_be_repeated(call: Caller) -> None:
    job = await call.job(request_id="r", delay=Duration(seconds=3600))
    assert await call.job(request_id="r", delay=Duration(seconds=3600)) == job
    assert await call.job(request_id="r", schedule_time=job.schedule_time) == job
    for other in ({"delay": Duration(seconds=3601)}, {}):
        refused = await refusal(call.job(request_id="r", **other))
        assert refused.reason == "REQUEST_ID_REUSED"


async def test_no_delay_means_at_once(call: Caller) -> None:
    job = await call.job(request_id="r", delay=Duration())
    assert not job.HasField("schedule_time")
    assert await call.job(request_id="r") == job


async def test_a_rerun_has_no_delay(call: Caller) -> None:
    job = await call.job(delay=Duration(seconds=3600))
    await call.CancelJob(job_id=job.id, user_id="ada")
    again = (await call.RerunJob(job_id=job.id, user_id="ada")).job
    assert not again.HasField("schedule_time")
