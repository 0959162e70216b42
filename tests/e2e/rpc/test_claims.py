"""Claiming, releasing and cancelling over the wire."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from jobledger_server.app import App, open_app
from jobledger_server.domain.commands import Claim
from jobledger_server.domain.limits import MAX_ANSWER_BYTES
from jobledger_server.ledger import claim_waiters
from jobledger_server.ledger.allocation import Allocation
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.settings import Settings
from jobledger_server.tuning import Tuning
from tests.support.databases import both_databases, several_servers
from tests.support.gated_store import Gate
from tests.support.rpc_caller import (
    COMPLETED,
    FAILED,
    PROCESSING,
    QUEUED,
    Caller,
    calling,
    policy,
    refusal,
)

Start = Callable[..., Any]


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


@both_databases
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


async def test_a_claim_returns_as_many_jobs_as_fit_in_a_message(
    call: Caller,
) -> None:
    """A client accepts messages up to 4 MiB, gRPC's default, and gets all of the jobs."""
    made = [await call.job(parameters={"text": "x" * 120_000}) for _ in range(30)]
    given: list[str] = []
    while len(given) < len(made):
        answer = await call.ClaimJobs(worker_id="w", job_types=["render"], max_jobs=30)
        assert 0 < answer.ByteSize() <= MAX_ANSWER_BYTES
        assert {job.attempt for job in answer.jobs} == {1}
        given += [job.id for job in answer.jobs]
    assert given == [job.id for job in made]


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


async def test_one_job_wakes_one_of_many_waiting_claims(
    app: App, call: Caller, claims_made: list[Claim]
) -> None:
    claims = [
        asyncio.ensure_future(
            call.ClaimJobs(worker_id=f"w{i}", job_types=["render"], wait=seconds(2 + i / 100))
        )
        for i in range(50)
    ]
    await waiting(app, "render", 50)
    while len(claims_made) < 50:
        await asyncio.sleep(0.001)
    await call.job()
    answers = await asyncio.gather(*claims)
    assert sorted(len(answer.jobs) for answer in answers) == [0] * 49 + [1]
    # Each queried when it arrived; one was woken; the rest queried again at their timeouts.
    assert len(claims_made) <= 50 + 1 + 49


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


@pytest.mark.parametrize("how", ["release", "expiry"])
async def test_a_waiting_claim_is_woken_by_a_job_that_lost_its_worker(
    app: App, call: Caller, how: str
) -> None:
    job = await call.job(retry_policy=policy(2))
    await call.ClaimJobs(worker_id="old", job_types=["render"], lease_duration=seconds(5))
    claim = asyncio.ensure_future(
        call.ClaimJobs(worker_id="new", job_types=["render"], wait=seconds(20))
    )
    await waiting(app, "render", 1)
    if how == "release":
        await call.ReleaseJob(job_id=job.id, attempt=1)
    (claimed,) = (await claim).jobs
    assert (claimed.id, claimed.attempt, claimed.worker_id) == (job.id, 2, "new")
    assert (await refusal(call.MarkCompleted(job_id=job.id, attempt=1))).reason == "LEASE_LOST"


@several_servers
async def test_a_claim_is_woken_by_a_creation_through_another_server(
    start: Start, call: Caller, claims_made: list[Claim]
) -> None:
    other = await start()
    async with calling(other.address) as there:
        claim = asyncio.ensure_future(
            there.ClaimJobs(worker_id="w", job_types=["render"], wait=seconds(20))
        )
        await waiting(other, "render", 1)
        job = await call.job()
        (claimed,) = (await claim).jobs
    assert claimed.id == job.id
    assert len(claims_made) <= 2


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


async def test_a_cancelled_queued_job_fails_at_once_through_processing(call: Caller) -> None:
    job = await call.job()
    stream = call.WatchJob(job_id=job.id, user_id="ada")
    await stream.read()
    ended = (await call.CancelJob(job_id=job.id, user_id="ada", reason="changed my mind")).job
    assert (ended.status, ended.error.reason) == (FAILED, "CANCELLED")
    assert (ended.error.message, ended.cancel_reason) == ("changed my mind", "changed my mind")
    message = await stream.read()
    assert message.job == ended
    assert [(s.from_status, s.to_status, s.actor) for s in message.transitions] == [
        (QUEUED, PROCESSING, "ada"),
        (PROCESSING, FAILED, "ada"),
    ]
    assert await stream.read() is grpc.aio.EOF
    # Twice is the same as once.
    assert (await call.CancelJob(job_id=job.id, user_id="ada", reason="again")).job == ended


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


async def test_a_timeout_fails_a_job_and_its_watcher_sees_it(call: Caller) -> None:
    fails = {
        "run_timeout": ("RUN_EXPIRED", "the job did not finish within its run timeout"),
        "stall_timeout": ("STALLED", "worker 'w' had no news, and no attempts are left"),
        "queue_timeout": ("QUEUE_EXPIRED", "no worker claimed the job within its queue timeout"),
    }
    once = {"max_attempts": 1}
    jobs = [await call.job(retry_policy=once, **{timeout: seconds(1)}) for timeout in fails]
    await call.ClaimJobs(worker_id="w", job_types=["render"], max_jobs=2)
    for job, failure in zip(jobs, fails.values(), strict=True):
        stream = call.WatchJob(job_id=job.id, user_id="ada")
        steps = []
        while (news := await stream.read()) is not grpc.aio.EOF:
            last = news.job
            steps += news.transitions
        assert (last.status, last.error.reason, last.error.message) == (FAILED, *failure)
        assert [step.to_status for step in steps] == [PROCESSING, FAILED]
        assert steps[-1].actor == "system"


async def test_a_start_has_a_lease_of_an_hour_or_as_requested(call: Caller) -> None:
    for fields, lease in (({}, 3600), ({"lease_duration": seconds(5)}, 5)):
        job = await call.job()
        job = (await call.TransitionJob(job_id=job.id, target_status=PROCESSING, **fields)).job
        micros = job.lease_expire_time.ToMicroseconds() - job.update_time.ToMicroseconds()
        assert micros == lease * 1_000_000
