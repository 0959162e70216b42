"""create_jobs() of both clients against the real server: all or none, and which one is wrong."""

import asyncio
import uuid
from datetime import timedelta

import pytest

from jobledger import (
    AsyncClient,
    Client,
    InvalidField,
    JobView,
    NewJob,
    RequestIdReused,
    RetryPolicy,
)
from tests.e2e.client.both_clients import BOTH, kind_of


@pytest.fixture
def create(request, server):
    """Create jobs with either client, for an owner of the test's own."""
    owner = f"user-{uuid.uuid4()}"

    async def create(jobs, **options):
        if kind_of(request) == "async":
            async with AsyncClient(server.target, user_id=owner) as client:
                return await client.create_jobs(jobs, **options)

        def call():
            with Client(server.target, user_id=owner) as client:
                return client.create_jobs(jobs, **options)

        return await asyncio.to_thread(call)

    create.owner = owner
    return create


async def listed(server, owner):
    async with AsyncClient(server.target, user_id=owner) as client:
        jobs = client.list_jobs(page_size=1000, view=JobView.FULL)
        return [job async for job in jobs]


@pytest.mark.parametrize("create", BOTH, indirect=True)
async def test_created_jobs_are_returned_in_order_with_all_their_fields(create, server):
    jobs = await create(
        NewJob(
            f"t{i}",
            {"n": i},
            labels={"n": str(i)},
            retry_policy=RetryPolicy(max_attempts=i + 1),
            queue_timeout=timedelta(minutes=i + 1),
            run_timeout=i + 1.5,
        )
        for i in range(300)
    )
    assert [job.job_type for job in jobs] == [f"t{i}" for i in range(300)]
    last = jobs[-1]
    assert (last.user_id, last.parameters, last.labels["n"]) == (create.owner, None, "299")
    assert last.retry_policy.max_attempts == 300
    waits = last.queue_expire_time - last.create_time
    assert waits == timedelta(minutes=300)
    assert [job.parameters for job in await listed(server, create.owner)] == [
        {"n": i} for i in reversed(range(300))
    ]


@pytest.mark.parametrize("create", BOTH, indirect=True)
async def test_an_invalid_job_is_named_by_its_index_and_none_is_created(create, server):
    good, never = NewJob("render"), RetryPolicy(max_attempts=-1)
    with pytest.raises(InvalidField) as refused:
        await create([good, NewJob("no good"), good, NewJob("render", retry_policy=never)])
    assert {field for field, _ in refused.value.violations} == {
        "requests[1].job_type",
        "requests[3].retry_policy.max_attempts",
    }
    await create([NewJob("render", request_id="used")])
    with pytest.raises(RequestIdReused) as reused:
        await create([good, good, NewJob("other", request_id="used")])
    assert reused.value.index == 2
    assert len(await listed(server, create.owner)) == 1


async def test_a_thousand_jobs_are_created_at_once_and_no_more(create, server):
    with pytest.raises(InvalidField, match="1000"):
        await create(NewJob("render") for _ in range(1001))
    assert await create([]) == []
    assert len(await create([NewJob("render")] * 1000)) == 1000
    assert len(await listed(server, create.owner)) == 1000


async def test_create_jobs_can_create_for_another_user(create):
    other = f"user-{uuid.uuid4()}"
    (job,) = await create([NewJob("render")], user_id=other)
    assert job.user_id == other
