"""BatchCreateJobs: all or none, in order, and precise about which one is wrong."""

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from jobledger.v1 import job_service_pb2 as pb
from jobledger.v1.job_pb2 import RetryPolicy
from jobledger_server.app import App
from tests.support.rpc_caller import QUEUED, Caller, refusal


def creation(**fields: Any) -> pb.CreateJobRequest:
    return pb.CreateJobRequest(**{"job_type": "render", **fields})


async def count(call: Caller, user_id: str = "ada") -> int:
    return len((await call.ListJobs(user_id=user_id, page_size=1000)).jobs)


async def test_a_batch_creates_its_jobs_in_order(call: Caller, app: App) -> None:
    requests = [
        creation(
            job_type=f"t{i}", labels={"n": str(i)}, retry_policy=RetryPolicy(max_attempts=i + 1)
        )
        for i in range(200)
    ]
    requests[7].parameters.update({"ü": [1, None, {"x": "🎬"}]})
    requests[8].queue_timeout.CopyFrom(Duration(seconds=60))
    before = app.hub.seq
    jobs = (await call.BatchCreateJobs(user_id="ada", requests=requests)).jobs
    assert [job.job_type for job in jobs] == [f"t{i}" for i in range(200)]
    assert [job.retry_policy.max_attempts for job in jobs] == list(range(1, 201))
    assert {(job.user_id, job.status, job.version) for job in jobs} == {("ada", QUEUED, 1)}
    assert [job.id for job in jobs] == sorted(job.id for job in jobs)
    full = (await call.GetJob(job_id=jobs[7].id, user_id="ada")).job
    assert full.parameters == requests[7].parameters
    assert app.hub.seq == before + 200
    listed = (await call.ListJobs(user_id="ada", page_size=1000)).jobs
    assert list(listed) == list(reversed(jobs))


async def test_a_batch_has_between_one_and_a_thousand_jobs(app: App, call: Caller) -> None:
    jobs = (await call.BatchCreateJobs(user_id="ada", requests=[creation()] * 1000)).jobs
    assert len(jobs) == 1000
    read = await call.BatchGetJobs(user_id="ada", job_ids=[job.id for job in jobs])
    assert list(read.jobs) == list(jobs)
    assert not read.missing_job_ids
    for requests in ([creation()] * 1001, []):
        refused = await refusal(call.BatchCreateJobs(user_id="ada", requests=requests))
        (violation,) = refused.details["BadRequest"].field_violations
        assert (violation.field, refused.reason) == ("requests", "INVALID_FIELD")
    assert app.hub.seq == 1000


async def test_every_violation_of_a_batch_is_named_by_index_and_no_job_is_created(
    call: Caller,
) -> None:
    requests = [
        creation(),
        creation(job_type="no good"),
        creation(user_id="ada"),
        creation(user_id="bob", retry_policy=RetryPolicy(max_attempts=-1), labels={"?": "x"}),
    ]
    refused = await refusal(call.BatchCreateJobs(user_id="ada", requests=requests))
    assert {v.field for v in refused.details["BadRequest"].field_violations} == {
        "requests[1].job_type",
        "requests[3].user_id",
        "requests[3].retry_policy.max_attempts",
        "requests[3].labels",
    }
    refused = await refusal(call.BatchCreateJobs(requests=[creation()]))
    assert [v.field for v in refused.details["BadRequest"].field_violations] == ["user_id"]
    assert await count(call) == 0


async def test_a_repeated_batch_returns_the_existing_jobs(call: Caller) -> None:
    requests = [creation(request_id=f"r{i}") for i in range(5)]
    first = await call.BatchCreateJobs(user_id="ada", requests=requests)
    again = await call.BatchCreateJobs(user_id="ada", requests=requests)
    assert (again.jobs, list(first.existing)) == (first.jobs, [False] * 5)
    assert list(again.existing) == [True] * 5
    # Some exist, some do not: those that do are given, the others are made.
    more = await call.BatchCreateJobs(
        user_id="ada", requests=[creation(request_id="new"), *requests]
    )
    assert list(more.jobs[1:]) == list(first.jobs)
    assert list(more.existing) == [False, *again.existing]
    # The same request twice in one call is one job; a single creation's counts as well.
    single = await call.job(request_id="single")
    twice = [creation(request_id="single"), creation(request_id="two")] * 2
    batch = await call.BatchCreateJobs(user_id="ada", requests=twice)
    jobs = batch.jobs
    assert list(batch.existing) == [True, False, True, True]
    assert [jobs[0], jobs[1]] == [jobs[2], jobs[3]]
    assert jobs[0] == single
    assert await count(call) == 5 + 1 + 2


@pytest.mark.parametrize("within", [False, True])
async def test_a_reused_request_id_is_named_by_index_and_no_job_is_created(
    call: Caller, *, within: bool
) -> None:
    used = creation(request_id="used")
    if not within:
        await call.BatchCreateJobs(user_id="ada", requests=[used])
    other = creation(request_id="used", job_type="other")
    requests = [creation(), used if within else creation(request_id="fresh"), other]
    before = await count(call)
    refused = await refusal(call.BatchCreateJobs(user_id="ada", requests=requests))
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "REQUEST_ID_REUSED",
    )
    assert refused.metadata == {"request_id": "used", "index": "2"}
    assert await count(call) == before
    # Nothing of the refused call is remembered; tests/integration/ledger has this within one
    # transaction.
    fresh, job = await asyncio.gather(
        call.job(request_id="fresh", job_type="else"), call.job(request_id="new")
    )
    assert (fresh.job_type, job.version) == ("else", 1)
