"""RerunJob: a terminal job is run again, once, as a new job."""

from typing import Any

import pytest
from grpc import StatusCode

from tests.support.rpc_caller import FAILED, Caller, policy, refusal

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def failed(call: Caller, **fields: Any) -> Any:
    job = await call.running(**fields)
    await call.MarkFailed(job_id=job.id, attempt=1, finish={"error": {"message": "no"}})
    return (await call.GetJob(job_id=job.id, user_id=job.user_id, view="JOB_VIEW_BASIC")).job


async def rerun(call: Caller, job: Any, **fields: Any) -> Any:
    return (await call.RerunJob(job_id=job.id, user_id=job.user_id, **fields)).job


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
