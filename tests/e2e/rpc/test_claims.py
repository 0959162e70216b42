"""Claiming, releasing and cancelling over the wire."""

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from jobledger_server.app import App, open_app
from jobledger_server.domain.commands import Claim
from jobledger_server.ledger import claim_waiters
from jobledger_server.ledger.allocation import Allocation
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.settings import Settings
from jobledger_server.tuning import Tuning
from tests.support.gated_store import Gate
from tests.support.rpc_caller import COMPLETED, PROCESSING, QUEUED, Caller, calling, refusal


def seconds(value: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(value * 1e9))
    return duration


@pytest.fixture
def claims_made(monkeypatch: pytest.MonkeyPatch) -> list[Claim]:
    """Every claim that reached the ledger."""
    made: list[Claim] = []
    submit = Ledger.submit

    def counted(self: Ledger, commands: Any, caller: Any) -> Any:
        made.extend(each.command for each in commands if isinstance(each, Allocation))
        return submit(self, commands, caller)

    monkeypatch.setattr(Ledger, "submit", counted)
    return made


async def waiting(app: App, job_type: str, count: int) -> None:
    """Return when this number of claims waits for a job of this type."""
    async with asyncio.timeout(20):
        while app.claim_waiters.count(job_type) < count:
            await asyncio.sleep(0.001)


async def test_a_claim_gives_the_oldest_jobs_under_a_lease(call: Caller) -> None:
    made = [await call.job(parameters={"n": n}) for n in range(3)]
    claimed = await call.ClaimJobs(
        worker_id="w1", job_types=["render"], max_jobs=2, lease_duration=seconds(30)
    )
    assert [job.id for job in claimed.jobs] == [job.id for job in made[:2]]
    job = claimed.jobs[0]
    assert (job.status, job.attempt, job.worker_id) == (PROCESSING, 1, "w1")
    lease = job.lease_expire_time.ToMicroseconds() - job.update_time.ToMicroseconds()
    assert lease == 30_000_000
    assert not job.HasField("queue_expire_time")
    assert [job.parameters["n"] for job in claimed.jobs] == [0, 1]
    assert (await call.GetJob(job_id=job.id, user_id="ada")).job == job


async def test_one_job_is_claimed_by_default(call: Caller) -> None:
    for _ in range(2):
        await call.job()
    assert len((await call.ClaimJobs(worker_id="w", job_types=["render"])).jobs) == 1


async def test_a_waiting_claim_is_woken_by_a_creation_and_does_not_poll_more_often(
    app: App, call: Caller, claims_made: list[Claim]
) -> None:
    claim = asyncio.ensure_future(
        call.ClaimJobs(worker_id="w", job_types=["export", "render"], wait=seconds(20))
    )
    await waiting(app, "render", 1)
    await call.job(job_type="other")
    job = await call.job()
    (claimed,) = (await claim).jobs
    assert claimed.id == job.id
    # One query when it arrived, and one when it was woken if there was no job before.
    assert len(claims_made) <= 2


async def test_a_claim_that_was_woken_for_no_job_waits_on(
    app: App, call: Caller, claims_made: list[Claim]
) -> None:
    claim = asyncio.ensure_future(
        call.ClaimJobs(worker_id="w", job_types=["render"], wait=seconds(20))
    )
    await waiting(app, "render", 1)
    while len(claims_made) < 1:
        await asyncio.sleep(0.001)
    app.claim_waiters.wake("render", 1)  # as for a job that a claim elsewhere was quicker to get
    while len(claims_made) < 2:
        await asyncio.sleep(0.001)
    job = await call.job()
    (claimed,) = (await claim).jobs
    assert claimed.id == job.id


async def test_jobs_claimed_for_a_caller_that_disconnected_are_released(gated: App) -> None:
    """The claim has begun its commit when its caller goes: the job's one attempt is not lost."""
    async with calling(gated.address) as call:
        job = await call.job(retry_policy={"max_attempts": 1})
        gate = gated.store.before_commit = Gate()
        left = call.ClaimJobs(worker_id="gone", job_types=["render"], wait=seconds(20))
        async with asyncio.timeout(20):
            await gate.reached.wait()
            left.cancel()
            while gated.claim_waiters.count("render"):
                await asyncio.sleep(0.001)
        gate.open()
        (claimed,) = (
            await call.ClaimJobs(worker_id="here", job_types=["render"], wait=seconds(20))
        ).jobs
        # The first attempt was that of the caller that disconnected.
        assert (claimed.id, claimed.attempt, claimed.worker_id) == (job.id, 2, "here")
        assert (await call.MarkCompleted(job_id=job.id, attempt=2)).job.status == COMPLETED


async def test_a_draining_server_answers_waiting_claims_with_no_job(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = asyncio.Event()
    wait = claim_waiters.ClaimWaiter.wait

    async def noted(waiter: claim_waiters.ClaimWaiter, patience: float) -> None:
        waits.set()
        await wait(waiter, patience)

    monkeypatch.setattr(claim_waiters.ClaimWaiter, "wait", noted)
    settings = Settings(listen="127.0.0.1:0", database=database_url, grace=5.0)
    tuning = Tuning(look_seconds=3600)  # it is woken, or cut off
    async with open_app(settings, tuning=tuning) as draining:
        channel = grpc.aio.insecure_channel(draining.address)
        claim = Caller(channel).ClaimJobs(worker_id="w", job_types=["render"], wait=seconds(20))
        async with asyncio.timeout(20):
            await waits.wait()  # queried, and got no job
    assert not (await claim).jobs
    await channel.close()


async def test_a_released_job_is_claimable_again_and_keeps_its_attempts(call: Caller) -> None:
    job = await call.job()
    await call.ClaimJobs(worker_id="w", job_types=["render"])
    await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": 60})
    back = (await call.ReleaseJob(job_id=job.id, attempt=1)).job
    assert (back.status, back.worker_id, back.attempt) == (PROCESSING, "", 1)
    assert not back.HasField("lease_expire_time")
    assert back.HasField("queue_expire_time")
    assert (await call.ReleaseJob(job_id=job.id, attempt=1)).job == back
    (again,) = (await call.ClaimJobs(worker_id="w2", job_types=["render"])).jobs
    assert (again.attempt, again.progress) == (2, 0)
    stale = await refusal(call.ReleaseJob(job_id=job.id, attempt=1))
    assert (stale.code, stale.reason) == (StatusCode.ABORTED, "LEASE_LOST")
    await call.MarkCompleted(job_id=job.id, attempt=2)
    steps = (await call.ListTransitions(job_id=job.id, user_id="ada")).transitions
    assert [(s.from_status, s.to_status, s.attempt) for s in steps] == [
        (QUEUED, PROCESSING, 1),
        (PROCESSING, COMPLETED, 2),
    ]


async def test_a_worker_asked_to_cancel_may_finish_with_any_outcome(call: Caller) -> None:
    job = await call.running()
    stream = call.WatchJob(job_id=job.id, user_id="ada")
    await stream.read()
    asked = (await call.CancelJob(job_id=job.id, user_id="ada", reason="enough")).job
    assert asked.status == PROCESSING
    assert asked.HasField("cancel_request_time")
    assert (await stream.read()).job == asked
    assert (await call.CancelJob(job_id=job.id, user_id="ada", reason="again")).job == asked
    report = await call.UpdateProgress(job_id=job.id, attempt=1)
    assert (report.applied, report.cancel_requested) == (True, True)
    ended = (await call.MarkPartial(job_id=job.id, attempt=1)).job
    assert ended.cancel_reason == "enough"
    assert (await call.CancelJob(job_id=job.id, user_id="ada")).job == ended


async def test_a_start_has_a_lease_of_an_hour_or_as_requested(call: Caller) -> None:
    for fields, lease in (({}, 3600), ({"lease_duration": seconds(5)}, 5)):
        job = await call.job()
        job = (await call.TransitionJob(job_id=job.id, target_status=PROCESSING, **fields)).job
        micros = job.lease_expire_time.ToMicroseconds() - job.update_time.ToMicroseconds()
        assert micros == lease * 1_000_000
