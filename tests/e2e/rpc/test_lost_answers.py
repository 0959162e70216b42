"""Claims of workers that say what they hold: a lost answer costs no attempt."""

import asyncio
from typing import Any

from google.protobuf.duration_pb2 import Duration

from jobledger.v1 import job_pb2
from jobledger_server.app import App
from tests.support.databases import both_databases
from tests.support.proxy import Proxy
from tests.support.rpc_caller import COMPLETED, PROCESSING, Caller, calling, refusal

CLAIM = {"worker_id": "w", "job_types": ["render"], "max_jobs": 9}
WAIT = Duration(seconds=20)


async def claim(call: Caller, **fields: Any) -> list[Any]:
    return list((await call.ClaimJobs(**{**CLAIM, **fields})).jobs)


async def read(call: Caller, job: Any) -> Any:
    return (await call.GetJob(job_id=job.id, user_id="ada", view="JOB_VIEW_BASIC")).job


def named(*jobs: Any) -> list[dict[str, Any]]:
    return [{"job_id": job.id, "attempt": job.attempt} for job in jobs]


@both_databases
async def test_an_answer_that_never_arrives_costs_no_attempt(app: App, call: Caller) -> None:
    async with Proxy(app.address) as proxy, calling(proxy.target) as worker:
        lost = worker.ClaimJobs(**CLAIM, holds_none=True, wait=WAIT)
        async with asyncio.timeout(20):
            while not app.claim_waiters.count("render"):
                await asyncio.sleep(0.001)
        proxy.swallow()  # the server sees no broken connection: it has answered
        job = await call.job(retry_policy={"max_attempts": 1})
        stream = call.WatchJob(job_id=job.id, user_id="ada")
        async with asyncio.timeout(20):
            while not (await stream.read()).job.held:
                pass
        stream.cancel()
        (again,) = await claim(call, holds_none=True, wait=WAIT)
        lost.cancel()
    assert (again.id, again.attempt, again.worker_id) == (job.id, 2, "w")
    attempts = (await call.ListAttempts(job_id=job.id, user_id="ada")).attempts
    assert attempts[0].outcome == job_pb2.ATTEMPT_OUTCOME_RELEASED
    done = (await call.MarkCompleted(job_id=job.id, attempt=2)).job
    assert done.status == COMPLETED


async def test_what_a_worker_names_and_what_others_hold_stays(call: Caller) -> None:
    kept, unnamed, old, other, foreign, started = [await call.job() for _ in range(6)]
    held = {job.id: job for job in await claim(call, max_jobs=3)}
    assert held.keys() == {kept.id, unnamed.id, old.id}
    await claim(call, worker_id="another", max_jobs=2)
    await call.TransitionJob(job_id=started.id, target_status=PROCESSING, worker_id="w")
    encoding = await call.job(job_type="encode")
    await call.ClaimJobs(worker_id="w", job_types=["encode"])
    before = [await read(call, job) for job in (kept, other, foreign, encoding)]
    holding = [*named(held[kept.id]), {"job_id": old.id, "attempt": 7}]
    found = await claim(call, holding=holding)
    assert {job.id: job.attempt for job in found} == {unnamed.id: 2, old.id: 2, started.id: 2}
    assert [await read(call, job) for job in (kept, other, foreign, encoding)] == before


async def test_a_claim_that_does_not_say_what_is_held_releases_nothing(call: Caller) -> None:
    await call.job()
    (held,) = await claim(call)
    assert await claim(call) == []
    assert (await read(call, held)).version == held.version


async def test_a_released_job_goes_to_any_worker(call: Caller) -> None:
    await call.job(retry_policy={"max_attempts": 1})
    (lost,) = await claim(call)
    elsewhere = asyncio.create_task(claim(call, worker_id="another", wait=WAIT))
    (cancelled,) = await asyncio.gather(call.CancelJob(job_id=lost.id, user_id="ada"))
    assert cancelled.job.HasField("cancel_request_time")
    # It was to be cancelled: nobody runs it any more.
    assert await claim(call, holds_none=True) == []
    ended = await read(call, lost)
    assert (ended.cancelled, ended.error.reason) == (True, "CANCELLED")
    job = await call.job()
    assert [each.id for each in await elsewhere] == [job.id]


async def test_a_worker_holds_none_or_names_them(call: Caller) -> None:
    both = await refusal(claim(call, holding=[{"job_id": "j", "attempt": 1}], holds_none=True))
    assert (both.reason, "holds_none" in both.message) == ("INVALID_FIELD", True)
