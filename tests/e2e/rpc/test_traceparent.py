"""`Job.traceparent`: the trace of a job's creator, given to each attempt."""

from typing import Any

from grpc.aio import Channel

from jobledger.v1 import job_service_pb2 as pb
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.rpc_caller import Caller

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{PARENT}-01"


async def created(channel: Channel, *traceparents: str, **fields: Any) -> Any:
    request = pb.CreateJobRequest(user_id="ada", job_type="render", **fields)
    metadata = [("traceparent", each) for each in traceparents]
    return (await JobServiceStub(channel).CreateJob(request, metadata=metadata)).job


async def test_a_traceparent_is_kept_and_given_to_each_attempt(
    call: Caller, channel: Channel
) -> None:
    job = await created(channel, VALID)
    assert job.traceparent == VALID
    assert (await call.GetJob(job_id=job.id, user_id="ada")).job.traceparent == VALID
    lease = {"seconds": 30}
    claim = {"job_types": ["render"], "max_jobs": 1, "lease_duration": lease}
    (first,) = (await call.ClaimJobs(worker_id="w1", **claim)).jobs
    await call.ReleaseJob(job_id=job.id, attempt=1)
    (second,) = (await call.ClaimJobs(worker_id="w2", **claim)).jobs
    assert [(each.attempt, each.traceparent) for each in (first, second)] == [
        (1, VALID),
        (2, VALID),
    ]
    ended = (await call.MarkCompleted(job_id=job.id, attempt=2)).job
    assert ended.traceparent == VALID


async def test_all_jobs_of_a_batch_have_the_traceparent(channel: Channel) -> None:
    request = pb.BatchCreateJobsRequest(
        user_id="ada", requests=[pb.CreateJobRequest(job_type=each) for each in ("a", "b")]
    )
    metadata = [("traceparent", VALID)]
    jobs = (await JobServiceStub(channel).BatchCreateJobs(request, metadata=metadata)).jobs
    assert [each.traceparent for each in jobs] == [VALID, VALID]
