"""wait_all() and as_completed(): many jobs over one stream, with both clients."""

import asyncio
import uuid

import grpc
import pytest

from jobledger import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    FeedEvent,
    Job,
    JobNotFound,
    JobStatus,
    NewJob,
)
from jobledger.core.streams import Stop, Watch
from jobledger.core.sync.completion import as_completed


@pytest.fixture
def owner():
    return f"user-{uuid.uuid4()}"


@pytest.fixture
async def client(server, owner):
    async with AsyncClient(server.target, user_id=owner) as client:
        yield client


async def started(client, count):
    jobs = await client.create_jobs([NewJob("render")] * count)
    return [(await client.start_job(job.id)).id for job in jobs]


async def test_jobs_come_in_the_order_in_which_they_finish(client):
    a, b, c, d = await started(client, 4)
    await client.mark_completed(c)
    waiting = client.as_completed([a, b, c, d])
    seen = [(await anext(waiting)).id]
    await client.mark_failed(d, "no")
    await client.mark_completed(a)
    seen += [(await anext(waiting)).id, (await anext(waiting)).id]
    await client.mark_partial(b)
    seen += [job.id async for job in waiting]
    assert seen == [c, d, a, b]


async def test_all_are_returned_in_the_order_of_their_ids(client, server, owner):
    ids = await started(client, 5)
    other = (await started(client, 1))[0]

    def wait():
        with Client(server.target, user_id=owner) as blocking:
            return blocking.wait_all([*ids, ids[0]])

    waiting = asyncio.create_task(asyncio.to_thread(wait))
    also = asyncio.create_task(client.wait_all(ids))
    for job_id in reversed(ids):
        await client.mark_completed(job_id, {"id": job_id})
    jobs = await waiting
    assert [job.id for job in jobs] == [*ids, ids[0]]
    assert [job.result for job in jobs[:5]] == [{"id": job_id} for job_id in ids]
    assert await also == jobs[:5]
    assert (await client.get_job(other)).status is JobStatus.PROCESSING


async def test_waiting_for_no_jobs_makes_no_call():
    async with AsyncClient("127.0.0.1:1", user_id="ada") as client:
        assert await client.wait_all([]) == []


async def test_a_job_that_does_not_exist_or_is_deleted_is_not_found(client):
    (job_id,) = await started(client, 1)
    with pytest.raises(JobNotFound):
        await client.wait_all([job_id, str(uuid.uuid4())])
    await client.mark_completed(job_id)
    await client.delete_job(job_id)
    with pytest.raises(JobNotFound):
        await client.wait_all([job_id])


async def test_waiting_ends_with_its_timeout(client):
    ids = await started(client, 2)
    await client.mark_completed(ids[0])
    with pytest.raises(DeadlineExceeded, match=r"the jobs did not finish within 0\.5 s$"):
        await client.wait_all(ids, timeout=0.5)


def test_waiting_for_many_jobs_uses_one_stream_and_survives_breaks_and_a_gap(fault_server):
    """The scripted server has WatchJobs alone: any other call would fail."""
    say, news = fault_server.says, fault_server.news
    aborts = fault_server.aborts(grpc.StatusCode.UNAVAILABLE)
    say(news("1", "a"), news("2", "b"), news("3", "c"), news("4", synced=True), then=aborts)
    say(news("5", "b", 2, status="COMPLETED"), then=aborts)
    expired = fault_server.rich(grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED")
    say(then=fault_server.refuses(expired))
    say(news("9", "a", 3), news("10", "c", 5), then=aborts)
    say(
        news("11", "c", 6, status="FAILED"),
        news("12", "a", 4, status="PARTIAL"),
        then=fault_server.falls_silent,
    )
    with Client(fault_server.target, user_id="ada") as client:
        done = [(job.id, job.version) for job in client.as_completed(["a", "b", "c"])]
    assert done == [("b", 2), ("c", 6), ("a", 4)]
    tokens = [request.resume_token for request in fault_server.requests]
    assert tokens == ["", "4", "5", "", "10"]


def test_a_job_that_finished_in_a_gap_is_read_after_the_second_listing():
    """A listing has no terminal jobs: what finished in a gap would be waited for indefinitely."""
    done = Job(id="j", job_type="render", version=3, status=JobStatus.COMPLETED)

    def events():
        yield FeedEvent(job=Job(id="j", job_type="render"))
        yield FeedEvent(job=None, synced=True)
        yield FeedEvent(job=None, synced=True)
        raise AssertionError("nobody asked for the job")

    watch = Watch(events(), Stop())
    assert list(as_completed(watch, {"j": None}, lambda _: done, None)) == [done]


def test_reading_jobs_that_finished_before_obeys_the_timeout():
    watch = Watch((event for event in [FeedEvent(job=None, synced=True)]), Stop())
    done = as_completed(watch, {"j": None}, lambda _: pytest.fail("read"), 0.0)
    with pytest.raises(DeadlineExceeded):
        next(done)
