"""RerunJob: a terminal job is run again, once, as a new job."""

import asyncio
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from tests.support.databases import both_databases, several_servers
from tests.support.rpc_caller import (
    COMPLETED,
    FAILED,
    FULL,
    QUEUED,
    Caller,
    calling,
    policy,
    refusal,
)

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def failed(call: Caller, **fields: Any) -> Any:
    job = await call.running(**fields)
    await call.MarkFailed(job_id=job.id, attempt=1, finish={"error": {"message": "no"}})
    return (await call.GetJob(job_id=job.id, user_id=job.user_id, view="JOB_VIEW_BASIC")).job


async def rerun(call: Caller, job: Any, **fields: Any) -> Any:
    return (await call.RerunJob(job_id=job.id, user_id=job.user_id, **fields)).job


@both_databases
async def test_a_failed_job_is_run_again_as_a_new_job_with_its_content(call: Caller) -> None:
    content = {
        "parameters": {"frames": 240, "ü": ["🎬"]},
        "labels": {"team": "red"},
        "retry_policy": policy(3),
        "queue_timeout": Duration(seconds=60),
        "stall_timeout": Duration(seconds=61),
        "run_timeout": Duration(seconds=62),
    }
    job = await failed(call, request_id="r", **content)
    await call.CreateJob(user_id="ada", job_type="other")
    again = await rerun(call, job)
    assert again.id > job.id
    assert (again.origin_job_id, again.status, again.version) == (job.id, QUEUED, 1)
    assert not again.HasField("parameters")  # the answer to a write has no payloads
    full = (await call.GetJob(job_id=again.id, user_id="ada")).job
    assert (dict(full.labels), full.retry_policy) == ({"team": "red"}, job.retry_policy)
    assert full.parameters["frames"] == 240
    assert full.stall_timeout == Duration(seconds=61)
    waits = full.queue_expire_time.ToMicroseconds() - full.create_time.ToMicroseconds()
    assert waits == 60 * 10**6
    assert not full.HasField("schedule_time")
    (claimed,) = (await call.ClaimJobs(worker_id="w", job_types=["render"])).jobs
    assert (claimed.id, claimed.attempt, claimed.parameters) == (again.id, 1, full.parameters)
    runs = claimed.run_expire_time.ToMicroseconds() - claimed.start_time.ToMicroseconds()
    assert runs == 62 * 10**6
    # The one that failed stays as it was.
    stored = (await call.GetJob(job_id=job.id, user_id="ada", view="JOB_VIEW_BASIC")).job
    assert (stored, stored.origin_job_id) == (job, "")


async def test_a_job_is_rerun_once(call: Caller) -> None:
    job = await failed(call)
    first = await call.RerunJob(job_id=job.id, user_id="ada")
    again = first.job
    repeated = await call.RerunJob(job_id=job.id, user_id="ada")
    assert (repeated.job, first.existing, repeated.existing) == (again, False, True)
    # Whoever asks, and with whichever request id.
    assert await rerun(call, job, request_id="r") == again
    # Also while the other one runs, and when it has ended.
    await call.ClaimJobs(worker_id="w", job_types=["render"])
    assert (await rerun(call, job)).attempt == 1
    await call.MarkFailed(job_id=again.id, attempt=1, finish={"error": {"message": "again"}})
    assert (await rerun(call, job)).status == FAILED
    # That one can be rerun in turn, and the first one again when that is deleted.
    third = await rerun(call, again)
    assert third.origin_job_id == again.id
    await call.DeleteJob(job_id=again.id, user_id="ada")
    assert (await rerun(call, job)).id not in {job.id, again.id, third.id}


@several_servers
async def test_a_job_is_rerun_once_by_many_calls_at_once(start: Any, call: Caller) -> None:
    other = await start()
    async with calling(other.address) as there:
        jobs = [await failed(call) for _ in range(5)]
        made = await asyncio.gather(
            *(rerun(each, job) for job in jobs for each in [call, there] * 4)
        )
    assert {each.origin_job_id for each in made} == {job.id for job in jobs}
    assert len({each.id for each in made}) == 5
    assert len((await call.ListJobs(user_id="ada", page_size=100)).jobs) == 10


async def test_a_repetition_has_a_request_id(call: Caller) -> None:
    job, other = await failed(call), await failed(call)
    again = await rerun(call, job, request_id="r")
    assert await rerun(call, job, request_id="r") == again
    refused = await refusal(rerun(call, other, request_id="r"))
    assert (refused.code, refused.reason) == (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    # A creation with that id has the same content, but repeats nothing.
    refused = await refusal(call.job(request_id="r"))
    assert refused.reason == "REQUEST_ID_REUSED"
    taken = await call.job(request_id="t")
    refused = await refusal(rerun(call, other, request_id="t"))
    assert refused.details["ResourceInfo"].resource_name == taken.id
    assert (await rerun(call, other)).origin_job_id == other.id


async def test_only_a_terminal_job_of_its_owner_is_rerun(call: Caller) -> None:
    queued, running = await call.job(), await call.running()
    for job, current in ((queued, "QUEUED"), (running, "PROCESSING")):
        refused = await refusal(rerun(call, job))
        assert (refused.code, refused.reason) == (
            StatusCode.FAILED_PRECONDITION,
            "ILLEGAL_TRANSITION",
        )
        assert (refused.metadata["current"], refused.metadata["target"]) == (current, "RERUN")
        assert refused.message.endswith(f" is {current}; only a job that has ended can be rerun")
    job = await failed(call)
    theirs = await refusal(call.RerunJob(job_id=job.id, user_id="bob"))
    nobody = await refusal(call.RerunJob(job_id=queued.id[:-1] + "x", user_id="bob"))
    assert (theirs.code, theirs.reason) == (StatusCode.NOT_FOUND, "JOB_NOT_FOUND")
    assert nobody.reason == "JOB_NOT_FOUND"
    for end in ("MarkCompleted", "MarkPartial"):
        ended = await call.running()
        ended = (await getattr(call, end)(job_id=ended.id, attempt=1)).job
        assert (await rerun(call, ended)).origin_job_id == ended.id


async def test_a_repetition_has_the_trace_of_its_own_call(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await failed(call)
    monkeypatch.setattr(call, "_metadata", [("traceparent", TRACE)])
    assert (await rerun(call, job)).traceparent == TRACE


async def test_a_job_of_many_payloads_is_rerun_with_its_parameters_alone(call: Caller) -> None:
    job = await call.running(parameters={"n": 1}, retry_policy=policy(2))
    await call.UpdateProgress(job_id=job.id, attempt=1, progress={"checkpoint": {"step": 5}})
    end = {"result": {"n": 2}, "error": {"message": "no", "details": {"n": 3}}}
    await call.MarkFailed(job_id=job.id, attempt=1, finish=end)
    again = await rerun(call, job)
    full = (await call.GetJob(job_id=again.id, user_id="ada")).job
    assert full.parameters["n"] == 1
    for field in ("checkpoint", "result", "error", "last_error"):
        assert not full.HasField(field)


async def test_jobs_are_listed_by_the_reasons_of_their_errors_their_origin_and_their_holder(
    call: Caller,
) -> None:
    by_reason = {}
    for reason in ("DISK_FULL", "NO_FONT", "DISK_FULL"):
        job = await call.running()
        await call.MarkFailed(
            job_id=job.id, attempt=1, finish={"error": {"reason": reason, "message": "m"}}
        )
        by_reason[job.id] = reason
    held, waits, queued = await call.running(), await call.running(), await call.job()
    await call.ReleaseJob(job_id=waits.id, attempt=1)
    first = min(by_reason)
    repeats = (await call.RerunJob(job_id=first, user_id="ada")).job

    async def listed(**filters: Any) -> set[str]:
        found = (await call.ListJobs(user_id="ada", filter=filters)).jobs
        assert list(found) == sorted(found, key=lambda job: job.id, reverse=True)
        return {job.id for job in found}

    full = {job_id for job_id, reason in by_reason.items() if reason == "DISK_FULL"}
    assert await listed(error_reasons=["DISK_FULL"]) == full
    assert await listed(error_reasons=["DISK_FULL", "NO_FONT", "OTHER"]) == set(by_reason)
    assert await listed(error_reasons=["OTHER"]) == set()
    assert await listed(origin_job_id=first) == {repeats.id}
    assert await listed(origin_job_id=held.id) == set()
    assert await listed(held=True) == {held.id}
    assert await listed(held=False) == {*by_reason, waits.id, queued.id, repeats.id}
    assert await listed(held=False, statuses=["JOB_STATUS_PROCESSING"]) == {waits.id}
    assert await listed(error_reasons=["NO_FONT"], statuses=[COMPLETED]) == set()
    (job,) = (await call.ListJobs(user_id="ada", filter={"origin_job_id": first}, view=FULL)).jobs
    assert job.origin_job_id == first


async def test_a_page_token_is_of_its_filters(call: Caller) -> None:
    for _ in range(3):
        await failed(call)
    filters: dict[str, Any] = {"error_reasons": ["UNKNOWN"], "held": False}
    token = (await call.ListJobs(user_id="ada", page_size=1, filter=filters)).next_page_token
    page = await call.ListJobs(user_id="ada", page_size=5, page_token=token, filter=filters)
    assert len(page.jobs) == 2
    for other in (
        {"error_reasons": ["OTHER"]},
        {"held": True},
        {"origin_job_id": page.jobs[0].id},
    ):
        changed = {"user_id": "ada", "page_token": token, "filter": {**filters, **other}}
        assert (await refusal(call.ListJobs(**changed))).reason == "INVALID_TOKEN"
