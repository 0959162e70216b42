"""Workers and servers as processes that are killed, frozen and stopped."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from jobledger import AsyncClient, JobStatus, LeaseLost, RetryPolicy
from jobledger.worker import Completed, Worker

LEASE = 5.0  # of worker_program.py
COMPLETED = JobStatus.COMPLETED
FAILED = JobStatus.FAILED
TWICE = RetryPolicy(max_attempts=2, initial_backoff=0.1)

CROWD_JOBS = int(os.environ.get("JOBLEDGER_TEST_CROWD_JOBS", "1000"))
CROWD_WORKERS = int(os.environ.get("JOBLEDGER_TEST_CROWD_WORKERS", "20"))
OUTAGE = float(os.environ.get("JOBLEDGER_TEST_OUTAGE", "6"))
"""Seconds that the server is unavailable, besides those that it takes to start, which may be five
on a busy machine; a lease is three times that."""


async def test_a_job_whose_worker_was_killed_is_finished_by_another(
    server, client, job_type, start_worker
):
    victim = start_worker(server.target, job_type)
    job = await client.create_job(job_type, retry_policy=TWICE)
    assert await victim.says("started") == f"{job.id} 1"
    rescuer = start_worker(server.target, job_type)
    await rescuer.says("ready")
    victim.signal(signal.SIGKILL)
    assert await rescuer.says("started") == f"{job.id} 2"
    rescuer.signal(signal.SIGUSR1)
    done = await client.wait(job.id, timeout=20)
    assert (done.status, done.attempt) == (COMPLETED, 2)
    assert done.result["pid"] == rescuer.process.pid


async def test_no_step_runs_again_after_its_checkpoint_though_its_worker_is_killed_three_times(
    server, client, job_type, start_worker, tmp_path
):
    file = tmp_path / "steps"
    # Its worker is missed after a second without news: sooner than its lease expires.
    policy = RetryPolicy(max_attempts=100, initial_backoff=0.1, max_backoff=0.1)
    job = await client.create_job(job_type, retry_policy=policy, stall_timeout=1)
    for kill in range(3):
        # Before and after the checkpoint, in turn.
        last = "kept" if kill % 2 else "did"
        worker = start_worker(server.target, job_type, "steps", str(file), last)
        await worker.says(last)
        worker.signal(signal.SIGKILL)
    start_worker(server.target, job_type, "steps", str(file))
    done = await client.wait(job.id, timeout=60)
    assert (done.status, done.attempt >= 4) == (COMPLETED, True)
    steps = [line.split()[:2] for line in _lines(file)]
    assert {step for _, step in steps} == {str(step) for step in range(10)}
    for place, (what, step) in enumerate(steps):
        assert what == "did" or ["did", step] not in steps[place:]


async def test_a_handler_that_was_frozen_past_its_lease_is_stopped_and_sends_nothing(
    server, client, job_type, start_worker
):
    # It has no free slot: a claim of its that waits at the service would get the job again.
    frozen = start_worker(server.target, job_type, "hold", "1")
    job = await client.create_job(job_type, retry_policy=TWICE)
    await frozen.says("started")
    frozen.signal(signal.SIGSTOP)
    other = start_worker(server.target, job_type)
    assert await other.says("started") == f"{job.id} 2"
    with pytest.raises(LeaseLost):
        await client.mark_completed(job.id, {"late": True}, attempt=1)
    frozen.signal(signal.SIGCONT)
    assert await frozen.says("cancelled") == f"{job.id} 1"
    other.signal(signal.SIGUSR1)
    done = await client.wait(job.id, timeout=20)
    assert (done.attempt, done.result["pid"]) == (2, other.process.pid)


async def test_jobs_of_a_worker_that_is_stopped_are_claimed_by_another_at_once(
    server, client, job_type, start_worker
):
    first, once = start_worker(server.target, job_type), RetryPolicy(max_attempts=1)
    jobs = [await client.create_job(job_type, retry_policy=once) for _ in range(3)]
    for _ in jobs:
        await first.says("started")
    second = start_worker(server.target, job_type)
    await second.says("ready")
    first.signal(signal.SIGTERM)
    for _ in jobs:
        await second.says("started")
    assert await first.wait() == 0
    second.signal(signal.SIGUSR1)
    for job in jobs:
        done = await client.wait(job.id, timeout=20)
        # Released without using up its only attempt.
        assert (done.status, done.retry_policy.max_attempts) == (COMPLETED, 1)


@pytest.mark.slow
async def test_a_worker_whose_server_vanishes_for_a_third_of_its_lease_keeps_its_jobs(
    own_server, running
):
    async with AsyncClient(own_server.target, user_id="ada") as client:
        worker = Worker(client, concurrency=3, lease=3 * OUTAGE)
        gone, back = asyncio.Event(), asyncio.Event()
        started = asyncio.Semaphore(0)

        @worker.handler("through")
        async def through(job):
            started.release()
            await back.wait()
            await job.add_asset("image/png", url="https://example.com/a.png")
            return Completed({"attempt": job.attempt})

        @worker.handler("meanwhile")
        async def meanwhile(job):
            started.release()
            await gone.wait()
            await job.progress(50, "the service is unavailable")
            return Completed({"attempt": job.attempt})

        @worker.handler("linking")
        async def linking(job):
            started.release()
            await gone.wait()
            await job.add_asset("image/png", url="https://example.com/a.png")
            return Completed({"attempt": job.attempt})

        jobs = [await client.create_job(kind) for kind in ("through", "meanwhile", "linking")]
        running(worker)
        for _ in jobs:
            await started.acquire()
        await asyncio.to_thread(own_server.kill)
        gone.set()
        await asyncio.sleep(OUTAGE)
        await asyncio.to_thread(own_server.start)
        back.set()
        for job in jobs:
            done = await client.wait(job.id, timeout=20)
            assert (done.status, done.result["attempt"]) == (COMPLETED, 1)
        for job in (jobs[0], jobs[2]):
            assert len([asset async for asset in client.list_assets(job.id)]) == 1


@pytest.mark.slow
async def test_an_outage_of_three_leases_loses_neither_attempts_nor_results(own_server, running):
    """Work finished in the outage is reported after it; other work is released and done again."""
    async with AsyncClient(own_server.target, user_id="ada") as client:
        worker = Worker(client, concurrency=2, lease=LEASE)
        gone = asyncio.Event()
        started = asyncio.Semaphore(0)

        @worker.handler("short")
        async def short(job):
            started.release()
            await gone.wait()
            return Completed({"attempt": job.attempt})

        @worker.handler("long")
        async def long(job):
            started.release()
            if job.attempt == 1:
                await asyncio.Event().wait()
            return Completed({"attempt": job.attempt})

        jobs = [await client.create_job(kind) for kind in ("short", "long")]
        running(worker)
        for _ in jobs:
            await started.acquire()
        await asyncio.to_thread(own_server.kill)
        gone.set()
        await asyncio.sleep(3 * LEASE)
        await asyncio.to_thread(own_server.start)
        for job, attempt in zip(jobs, (1, 2), strict=True):
            done = await client.wait(job.id, timeout=20)
            assert (done.status, done.result["attempt"]) == (COMPLETED, attempt)


@pytest.mark.slow
async def test_a_worker_that_stops_in_an_outage_does_not_wait_for_its_end(own_server, running):
    async with AsyncClient(own_server.target, user_id="ada") as client:
        worker = Worker(client, lease=LEASE, grace=0)
        started, ended = asyncio.Event(), asyncio.Event()

        @worker.handler("long")
        async def long(job):
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        await client.create_job("long")
        run = running(worker)
        await started.wait()
        await asyncio.to_thread(own_server.kill)
        await ended.wait()
        worker.stop()
        async with asyncio.timeout(30):  # the server stays away
            await run


@pytest.mark.slow
async def test_hundreds_of_running_jobs_survive_the_death_of_the_server(own_server, running):
    async with AsyncClient(own_server.target, user_id="ada") as client:
        worker = Worker(client, concurrency=500, lease=30)
        go = asyncio.Event()
        held = asyncio.Semaphore(0)

        @worker.handler("render")
        async def render(job):
            held.release()
            await job.progress(10)
            await go.wait()
            return Completed({"attempt": job.attempt})

        running(worker)
        jobs = await asyncio.gather(*(client.create_job("render") for _ in range(500)))
        for _ in jobs:
            await held.acquire()
        await asyncio.to_thread(own_server.kill)
        go.set()
        await asyncio.to_thread(own_server.start)
        for job in jobs:
            done = await client.wait(job.id, timeout=60)
            assert (done.status, done.result["attempt"]) == (COMPLETED, 1)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_many_workers_that_are_killed_complete_each_job_once(
    server, client, job_type, start_worker, tmp_path
):
    def start():
        return start_worker(server.target, job_type, "crowd", str(tmp_path))

    workers = [start() for _ in range(CROWD_WORKERS)]
    policy = RetryPolicy(max_attempts=100, initial_backoff=0.1, max_backoff=1)
    creating = (client.create_job(job_type, retry_policy=policy) for _ in range(CROWD_JOBS))
    jobs = await asyncio.gather(*creating)

    async def kill_one_after_the_other():
        while True:
            victim = workers.pop(0)
            # A slow machine kills no faster than it starts others.
            await victim.says("ready")
            await asyncio.sleep(0.5)  # it is at work
            workers.append(start())
            await asyncio.to_thread(victim.close)

    killing = asyncio.create_task(kill_one_after_the_other())
    try:
        ends = [await client.wait(job.id, timeout=250) for job in jobs]
    finally:
        killing.cancel()
        await asyncio.wait({killing})
    for end in ends:
        assert end.status == COMPLETED
        steps = [step.to_status async for step in client.list_transitions(end.id)]
        assert steps == [JobStatus.PROCESSING, COMPLETED]
        attempts = [int(line.split()[0]) for line in _lines(tmp_path / end.id)]
        # Each attempt was one worker's, and the last is the one that counts.
        assert attempts == sorted(set(attempts))
        assert attempts[-1] == end.attempt == end.result["attempt"]
    # The kills have interrupted running jobs.
    assert any(end.attempt > 1 for end in ends)


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines()
