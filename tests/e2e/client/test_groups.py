"""Groups with both clients: a block that fills one, and its jobs as they end."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from jobledger import AsyncClient, Client, GroupSealed, JobNotFound, JobStatus, NewJob

if TYPE_CHECKING:
    from tests.support.server_process import ServerProcess


@pytest.fixture
async def owner(server: "ServerProcess") -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.target, user_id=f"user-{uuid.uuid4()}") as client:
        yield client


async def test_the_end_of_the_block_seals_the_group(owner: AsyncClient) -> None:
    async with owner.group("album", {"name": "x"}) as group:
        first = await group.create_job("page", {"page": 1})
        others = await group.create_jobs([NewJob("page")] * 2)
        assert not (await owner.get_job(group.job)).group.sealed
    assert group.job.group.sealed
    with pytest.raises(GroupSealed):
        await group.create_job("page")
    jobs = [job async for job in owner.list_jobs(group_id=group.job)]
    assert {job.id for job in jobs} == {first.id, *(job.id for job in others)}
    waiting = asyncio.create_task(owner.wait(group))
    for job in jobs:
        await owner.start_job(job.id)
        await owner.mark_completed(job.id, attempt=1)
    ended = await waiting
    assert (ended.id, ended.status, ended.group.completed) == (group.id, JobStatus.COMPLETED, 3)


async def test_an_exception_in_the_block_cancels_the_group(owner: AsyncClient) -> None:
    with pytest.raises(LookupError):
        async with owner.group("album") as group:
            job = await group.create_job("page")
            raise LookupError
    ended = await owner.wait(group)
    assert (ended.status, ended.cancelled) == (JobStatus.FAILED, True)
    assert ended.cancel_reason == "its creator failed: LookupError"
    assert (await owner.get_job(job)).cancelled


async def test_the_jobs_of_a_group_come_once_as_they_end_and_then_no_more(
    owner: AsyncClient,
) -> None:
    async with owner.group("album") as group:
        before, second, third = await group.create_jobs([NewJob("page")] * 3)
        for job in (before, second, third):
            await owner.start_job(job.id)
        await owner.mark_completed(before.id, {"page": 0}, attempt=1)
        coming = owner.as_completed(group)
        found = [await anext(coming)]
        await owner.mark_completed(third.id, {"page": 2}, attempt=1)
        found.append(await anext(coming))
        late = await group.create_job("page")
    await owner.cancel_job(late)
    await owner.mark_failed(second.id, "no", attempt=1)
    found += [job async for job in coming]
    assert [job.id for job in found[:2]] == [before.id, third.id]
    assert sorted(job.id for job in found[2:]) == sorted([late.id, second.id])
    assert [job.result for job in found[:2]] == [{"page": 0}, {"page": 2}]
    # So it is when all have ended before.
    again = [job async for job in owner.as_completed(await owner.get_job(group.job))]
    assert {job.id for job in again} == {job.id for job in found}


async def test_the_jobs_of_a_group_that_is_no_more_are_not_waited_for(owner: AsyncClient) -> None:
    async with owner.group("album") as group:
        pass
    assert (await owner.wait(group)).status is JobStatus.COMPLETED
    assert [job async for job in owner.as_completed(group)] == []
    await owner.delete_job(group.job)
    with pytest.raises(JobNotFound):
        assert [job async for job in owner.as_completed(group)]


def test_the_blocking_client_fills_groups_too(server: "ServerProcess") -> None:
    with Client(server.target, user_id=f"user-{uuid.uuid4()}") as client:
        with client.group("album", fail_fast=True) as group:
            first, second = group.create_jobs([NewJob("page")] * 2)
            with client.group("disc", group_id=group.job) as inner:
                pass
        client.start_job(first.id)
        client.mark_failed(first.id, "no", attempt=1)
        ended = list(client.as_completed(group))
        assert {job.id for job in ended} == {first.id, second.id, inner.id}
        assert client.wait(group).group.failed == 2

        with pytest.raises(LookupError), client.group("album") as group:
            group.create_job("page")
            raise LookupError
        assert client.wait(group).cancelled


def test_as_completed_refuses_a_job_that_is_no_group(server: "ServerProcess") -> None:
    with Client(server.target, user_id=f"user-{uuid.uuid4()}") as client:
        job = client.create_job("page")
        with pytest.raises(TypeError, match="no group"):
            client.as_completed(job)
