"""wait_all() and as_completed(): many jobs over one stream, with both clients."""

import asyncio
import uuid

import grpc
import pytest

from jobledger import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    JobNotFound,
    JobStatus,
    NewJob,
)
from tests.e2e.client.both_clients import BOTH, kind_of


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
    await client.mark_completed(c, attempt=1)
    waiting = client.as_completed([a, b, c, d])
    seen = [(await anext(waiting)).id]
    await client.mark_failed(d, "no", attempt=1)
    await client.mark_completed(a, attempt=1)
    seen += [(await anext(waiting)).id, (await anext(waiting)).id]
    await client.mark_partial(b, attempt=1)
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
        await client.mark_completed(job_id, {"id": job_id}, attempt=1)
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
    await client.mark_completed(job_id, attempt=1)
    await client.delete_job(job_id)
    with pytest.raises(JobNotFound):
        await client.wait_all([job_id])


async def test_waiting_ends_with_its_timeout(client):
    ids = await started(client, 2)
    await client.mark_completed(ids[0], attempt=1)
    with pytest.raises(DeadlineExceeded, match=r"the jobs did not finish within 0\.5 s$"):
        await client.wait_all(ids, timeout=0.5)


async def test_a_finished_job_has_its_payloads(client):
    for finished_before in (True, False):
        (job,) = await client.create_jobs([NewJob("render", {"a": 1})])
        await client.start_job(job.id)
        if not finished_before:
            waiting = asyncio.create_task(client.wait_all([job.id]))
            await asyncio.sleep(0)
        await client.mark_completed(job.id, {"b": 2}, attempt=1)
        (done,) = await (client.wait_all([job.id]) if finished_before else waiting)
        assert (done.parameters, done.result) == ({"a": 1}, {"b": 2})


async def test_more_jobs_than_a_stream_can_name_are_waited_for(client, server, owner):
    jobs = [NewJob("late" if number in (5, 500, 1019) else "render") for number in range(1020)]
    made = [*await client.create_jobs(jobs[:1000]), *await client.create_jobs(jobs[1000:])]
    ids = [job.id for job in made]
    late = [job.id for job in made if job.job_type == "late"]
    assert (await client.cancel_jobs(job_types=["render"])).changed == 1017
    with Client(server.target, user_id=owner) as blocking:
        streams = [client.as_completed(ids), blocking.as_completed(ids)]
        seen = [set(), set()]
        for _ in range(len(ids) - len(late)):
            seen[0].add((await anext(streams[0])).id)
        seen[1] = {(await asyncio.to_thread(next, streams[1])).id for _ in range(len(seen[0]))}
        assert seen == [set(ids) - set(late)] * 2
        for job_id in late:
            await client.cancel_job(job_id)
            assert (await anext(streams[0])).id == job_id
            assert (await asyncio.to_thread(next, streams[1])).id == job_id
        assert await anext(streams[0], None) is None
        assert await asyncio.to_thread(next, streams[1], None) is None


async def test_what_ends_one_of_several_streams_ends_the_waiting(client):
    ids = [job.id for job in await client.create_jobs([NewJob("render")] * 1000)]
    with pytest.raises(JobNotFound):
        await client.wait_all([*ids, str(uuid.uuid4())])
    with pytest.raises(DeadlineExceeded):
        await client.wait_all([*ids, (await client.create_job("render")).id], timeout=0.5)


@pytest.fixture
def completed(request):
    """Wait for jobs with either client; return what was yielded."""

    async def completed(target, ids, **options):
        if kind_of(request) == "async":
            async with AsyncClient(target, user_id="ada") as client:
                return [job async for job in client.as_completed(ids, **options)]

        def wait():
            with Client(target, user_id="ada") as client:
                return [*client.as_completed(ids, **options)]

        return await asyncio.to_thread(wait)

    return completed


@pytest.mark.parametrize("completed", BOTH, indirect=True)
async def test_waiting_for_many_jobs_uses_one_stream_and_survives_breaks_and_a_gap(
    fault_server, completed
):
    say, news = fault_server.says, fault_server.news
    aborts = fault_server.aborts(grpc.StatusCode.UNAVAILABLE)
    for job_id, version in (("a", 4), ("b", 2), ("c", 6)):
        fault_server.stores(job_id, version, "COMPLETED", result={"of": job_id})
    say(news("1", "a"), news("2", "b"), news("3", "c"), news("4", synced=True), then=aborts)
    say(news("5", "b", 2, status="COMPLETED"), then=aborts)
    expired = fault_server.rich(grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED")
    say(then=fault_server.refuses(expired))
    # What finished in the gap is not in the listing.
    say(news("9", "a", 3), news("10", synced=True), then=aborts)
    say(news("12", "a", 4, status="PARTIAL"), then=fault_server.falls_silent)
    done = await completed(fault_server.target, ["a", "b", "c"])
    assert [(job.id, job.result) for job in done] == [(i, {"of": i}) for i in "bca"]
    assert [request.resume_token for request in fault_server.requests] == ["", "4", "5", "", "10"]
    assert {(request.user_id, *request.job_ids) for request in fault_server.requests} == {
        ("ada", "a", "b", "c")
    }


async def test_a_job_that_could_not_be_read_is_read_when_the_service_answers_again(
    fault_server, completed
):
    say, news = fault_server.says, fault_server.news
    fault_server.stores("a", 2, "COMPLETED")
    fault_server.outages = 2
    say(news("1", "a"), news("2", synced=True), news("3", "a", 2, status="COMPLETED"))
    say(news("4", synced=True), news("5", heartbeat=True), then=fault_server.falls_silent)
    (job,) = await completed(fault_server.target, ["a"])
    assert (job.id, fault_server.outages) == ("a", 0)


async def test_reading_jobs_that_finished_before_obeys_the_timeout(fault_server, completed):
    fault_server.outages = 1000
    fault_server.says(fault_server.news("1", synced=True), then=fault_server.falls_silent)
    with pytest.raises(DeadlineExceeded, match=r"the jobs did not finish within 0\.5 s"):
        await completed(fault_server.target, ["a"], timeout=0.5)


async def test_a_job_that_is_read_before_it_is_terminal_is_waited_for(fault_server, completed):
    """It changed while the jobs were listed, so it was not in the listing."""
    fault_server.stores("a", 2, "PROCESSING")

    def finishes(request, context):
        yield fault_server.news("2", synced=True)
        read.wait(30)
        fault_server.stores("a", 3, "COMPLETED", result={"b": 2})
        yield fault_server.news("3", "a", 3, status="COMPLETED")
        yield from fault_server.falls_silent(request, context)

    read = fault_server.was_read
    fault_server.scripts.append(finishes)
    (job,) = await completed(fault_server.target, ["a"])
    assert (job.status, job.version, job.result) == ("COMPLETED", 3, {"b": 2})
