"""ListAttempts: what became of each attempt of a job."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from jobledger.v1 import job_pb2 as pb
from jobledger_server.rpc.workers import worker_requests
from tests.support.rpc_caller import Caller, policy

RUNNING = pb.ATTEMPT_OUTCOME_UNSPECIFIED
COMPLETED, FAILED = pb.ATTEMPT_OUTCOME_COMPLETED, pb.ATTEMPT_OUTCOME_FAILED
LEASE_EXPIRED, STALLED = pb.ATTEMPT_OUTCOME_LEASE_EXPIRED, pb.ATTEMPT_OUTCOME_STALLED
RELEASED = pb.ATTEMPT_OUTCOME_RELEASED


async def attempts(call: Caller, job: Any, **fields: Any) -> list[Any]:
    return list((await call.ListAttempts(job_id=job.id, user_id="ada", **fields)).attempts)


async def claim(call: Caller, worker_id: str, **fields: Any) -> Any:
    (job,) = (
        await call.ClaimJobs(
            worker_id=worker_id, job_types=["render"], wait=Duration(seconds=20), **fields
        )
    ).jobs
    return job


async def test_each_attempt_has_its_worker_its_times_its_outcome_and_its_progress(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_requests, "MIN_LEASE_SECONDS", 0)
    job = await call.job(retry_policy=policy(3), stall_timeout=Duration(seconds=1))
    assert await attempts(call, job) == []
    first = await claim(call, "w1")
    (running,) = await attempts(call, job)
    assert (running.number, running.worker_id, running.outcome) == (1, "w1", RUNNING)
    assert running.start_time == first.start_time
    assert not running.HasField("end_time")
    assert not running.HasField("error")
    await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": 60})
    back = (await call.ReleaseJob(job_id=job.id, attempt=1)).job
    assert not back.held
    (released,) = await attempts(call, job)  # it waits for its next one
    assert (released.outcome, released.progress, released.end_time) == (
        RELEASED,
        60,
        back.update_time,
    )
    await claim(call, "w2", lease_duration=Duration(nanos=100_000_000))
    third = await claim(call, "w3")  # that lease has expired
    fourth = await claim(call, "w4")  # it stalled
    await call.UpdateProgress(job_id=job.id, attempt=4, progress={"progress": 10})
    error = {"reason": "NO_FONT", "message": "in words", "details": {"font": "Ü"}}
    ended = (await call.MarkFailed(job_id=job.id, attempt=4, finish={"error": error})).job
    found = await attempts(call, job)
    assert [(each.number, each.worker_id, each.outcome, each.progress) for each in found] == [
        (1, "w1", RELEASED, 60),
        (2, "w2", LEASE_EXPIRED, 0),
        (3, "w3", STALLED, 0),
        (4, "w4", FAILED, 10),
    ]
    assert [each.error.reason for each in found] == ["", "LEASE_EXPIRED", "STALLED", "NO_FONT"]
    assert found[0] == released
    assert found[2].start_time == third.update_time
    assert found[3].start_time == fourth.update_time
    assert found[3].end_time == ended.complete_time
    assert found[3].error == ended.error  # without its details


async def test_attempts_are_paged_oldest_first(call: Caller) -> None:
    job = await call.job(retry_policy=policy(1))
    for number in range(1, 6):
        await claim(call, f"w{number}")
        if number < 5:
            await call.ReleaseJob(job_id=job.id, attempt=number)
    for waits in (False, True):
        numbers: list[int] = []
        token = ""
        while True:
            page = await call.ListAttempts(
                job_id=job.id, user_id="ada", page_size=2, page_token=token
            )
            assert len(page.attempts) <= 2
            numbers += [each.number for each in page.attempts]
            if not (token := page.next_page_token):
                break
        assert numbers == [1, 2, 3, 4, 5], waits
        if not waits:
            await call.ReleaseJob(job_id=job.id, attempt=5)
