"""report_progress() of both clients against the real server."""

import asyncio
import uuid

import pytest

from jobledger import (
    AsyncClient,
    IllegalTransition,
    InvalidField,
    JobNotFound,
    JobStatus,
    LeaseLost,
    NewJob,
)
from tests.support.server_process import ServerProcess

PROCESSING = JobStatus.PROCESSING


async def started(client, count):
    """Make so many jobs that are being worked on."""
    jobs = await client.create_jobs([NewJob(f"t-{uuid.uuid4()}")] * count)
    return await asyncio.gather(*(client.start_job(job.id) for job in jobs))


@pytest.fixture
async def client(server):
    async with AsyncClient(server.target, user_id=f"user-{uuid.uuid4()}") as client:
        yield client


async def test_two_hundred_jobs_are_reported_on_at_once(report, server, client):
    jobs = await started(client, 200)
    async with report(server.target) as send:
        for progress in (1, 2, 3):
            answers = await asyncio.gather(
                *(
                    send(job.id, progress, progress_message=f"at {progress}", attempt=1)
                    for job in jobs
                )
            )
            assert [answer.job.id for answer in answers] == [job.id for job in jobs]
            assert {(a.applied, a.job.progress, a.job.status) for a in answers} == {
                (True, progress, PROCESSING)
            }
            assert not any(answer.cancel_requested for answer in answers)
    stored = [job async for job in client.list_jobs(page_size=1000)]
    assert {(job.progress, job.progress_message) for job in stored} == {(3, "at 3")}


async def test_what_one_task_sends_at_once_is_made_in_its_order(server, client):
    (job,) = await started(client, 1)
    async with client.report_progress() as reports:
        answers = await asyncio.gather(*(reports.send(job.id, at) for at in range(1, 101)))
    assert [answer.job.version for answer in answers] == list(range(3, 103))
    assert [answer.job.progress for answer in answers] == list(range(1, 101))


async def test_what_is_wrong_with_a_report_concerns_its_sender_only(report, server, client):
    job, lost, ended = await started(client, 3)
    queued = await client.create_job("render")
    await client.mark_completed(ended.id, {})
    async with report(server.target) as send:
        answers = await asyncio.gather(
            send(job.id, 10, attempt=1),
            send("nowhere", 1),
            send(job.id, 101, progress_message="x" * 600),
            send(lost.id, 20, attempt=7),
            send(queued.id, 1),
            send(ended.id, 5),
            return_exceptions=True,
        )
        fine, errors, late = answers[0], answers[1:-1], answers[-1]
        assert fine.applied
        assert not late.applied
        assert late.job.status == JobStatus.COMPLETED
        assert [type(error) for error in errors] == [
            JobNotFound,
            InvalidField,
            LeaseLost,
            IllegalTransition,
        ]
        unary = await asyncio.gather(
            client.update_progress("nowhere", 1),
            client.update_progress(job.id, 101, progress_message="x" * 600),
            client.update_progress(lost.id, 20, attempt=7),
            client.update_progress(queued.id, 1),
            return_exceptions=True,
        )
        for one, other in zip(errors, unary, strict=True):
            assert (one.code, one.reason, one.message) == (other.code, other.reason, other.message)
            assert one.metadata == other.metadata
        assert (errors[2].attempt, errors[3].current) == (1, "QUEUED")
        assert (await send(job.id, 30)).job.progress == 30


async def test_a_cancellation_comes_with_the_acknowledgement(report, server, client):
    (job,) = await started(client, 1)
    async with report(server.target) as send:
        assert not (await send(job.id, 1)).cancel_requested
        await client.cancel_job(job.id)
        answer = await send(job.id)
    assert (answer.applied, answer.cancel_requested) == (True, True)


@pytest.mark.slow
async def test_reports_go_on_while_the_server_is_killed_and_started_again(report, own_server):
    kills = 3
    async with AsyncClient(own_server.target, user_id="ada") as client:
        jobs = await started(client, 20)
        acknowledged = dict.fromkeys((job.id for job in jobs), 0)
        count = 0
        due = asyncio.Event()
        done = asyncio.Event()

        async def work(job_id):
            nonlocal count
            while not done.is_set():
                progress = min(acknowledged[job_id] + 1, 100)
                answer = await send(job_id, progress, attempt=1)
                assert (answer.job.id, answer.job.progress) == (job_id, progress)
                assert answer.applied
                acknowledged[job_id] = progress
                count += 1
                due.set()

        async def kill():
            for _ in range(kills):
                reached = count + 100
                while count < reached:
                    due.clear()
                    await due.wait()
                await asyncio.to_thread(own_server.kill)
                told = dict(acknowledged)
                await asyncio.to_thread(own_server.start)
                for job_id, progress in told.items():
                    assert (await client.get_job(job_id)).progress >= progress
            reached = count + 100
            while count < reached:
                due.clear()
                await due.wait()
            done.set()

        async with report(own_server.target, timeout=60) as send, asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(work(job.id))
            group.create_task(kill())
        for job_id, progress in acknowledged.items():
            assert (await client.get_job(job_id)).progress == progress


async def test_a_server_that_stops_in_good_order_is_not_noticed(report, own_server):
    async with AsyncClient(own_server.target, user_id="ada") as client:
        (job,) = await started(client, 1)
        async with report(own_server.target, timeout=60) as send:
            await send(job.id, 1)
            sending = asyncio.gather(*(send(job.id) for _ in range(50)))
            assert await asyncio.to_thread(own_server.terminate) == 0
            starting = asyncio.to_thread(own_server.start)
            answers, _ = await asyncio.gather(sending, starting)
            assert all(answer.applied for answer in answers)


async def test_a_stream_that_is_moved_is_not_noticed(report, tmp_path):
    with ServerProcess(tmp_path, arguments=("--max-watch-age", "1s")) as server:
        async with AsyncClient(server.target, user_id="ada") as client:
            (job,) = await started(client, 1)
            async with report(server.target, timeout=5) as send, asyncio.timeout(20):
                # Three lives of a stream, or more.
                until = asyncio.get_running_loop().time() + 4
                while asyncio.get_running_loop().time() < until:
                    assert (await send(job.id, attempt=1)).applied
