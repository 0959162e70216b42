"""Groups: jobs that no worker runs, and that end with the jobs that belong to them."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from jobledger.v1 import job_pb2, job_service_pb2
from jobledger_server.domain.limits import MAX_GROUP_LEVELS
from tests.support.databases import both_databases, several_servers
from tests.support.feed_events import events
from tests.support.rpc_caller import (
    COMPLETED,
    FAILED,
    PARTIAL,
    PROCESSING,
    QUEUED,
    Caller,
    calling,
    refusal,
    watching,
)

if TYPE_CHECKING:
    from jobledger_server.app import App

GROUP = job_service_pb2.GroupOptions()
FAIL_FAST = job_service_pb2.GroupOptions(fail_fast=True)
SEALED = job_service_pb2.GroupOptions(sealed=True)

COUNTS = ("queued", "processing", "completed", "partial", "failed")


def request(job_type: str = "render", **fields: Any) -> job_service_pb2.CreateJobRequest:
    return job_service_pb2.CreateJobRequest(job_type=job_type, **fields)


async def read(call: Caller, job: Any) -> Any:
    return (await call.GetJob(job_id=job.id, user_id=job.user_id, view="JOB_VIEW_BASIC")).job


async def children(call: Caller, group: Any) -> Any:
    """Return the jobs of a group, the oldest first."""
    filter_ = job_service_pb2.JobFilter(group_id=group.id)
    return (await call.ListJobs(user_id=group.user_id, filter=filter_)).jobs[::-1]


async def sealed(call: Caller, group: Any) -> Any:
    return (await call.SealGroup(job_id=group.id, user_id=group.user_id)).job


async def end(call: Caller, job: Any, how: str = "MarkCompleted") -> None:
    started = await call.TransitionJob(
        job_id=job.id, target_status=PROCESSING, worker_id="w", expected_version=job.version
    )
    why = {"finish": {"error": {"message": "no"}}} if how == "MarkFailed" else {}
    await getattr(call, how)(job_id=job.id, attempt=started.job.attempt, **why)


def counts(group: Any) -> dict[str, int]:
    """Return the counts that are not 0; their sum is the total."""
    found = {name: getattr(group.group, name) for name in COUNTS}
    assert sum(found.values()) == group.group.total
    return {name: count for name, count in found.items() if count}


@both_databases
async def test_a_group_ends_with_its_last_job(call: Caller) -> None:
    group = await call.job(job_type="album", group=GROUP, parameters={"name": "x"})
    assert (group.status, group.group.total) == (QUEUED, 0)
    first, second = [await call.job(group_id=group.id) for _ in range(2)]
    assert first.group_id == group.id
    group = await read(call, group)
    assert (group.status, counts(group), group.progress) == (QUEUED, {"queued": 2}, 0)
    await end(call, first)
    group = await read(call, group)
    assert (group.status, counts(group)) == (PROCESSING, {"queued": 1, "completed": 1})
    assert (group.progress, group.attempt) == (50, 0)
    await end(call, second)
    # It may get more, until it is sealed.
    assert (await read(call, group)).status == PROCESSING
    third = await call.job(group_id=group.id)
    assert (await read(call, group)).progress == 100  # which never falls
    group = await sealed(call, group)
    assert (group.status, group.group.sealed) == (PROCESSING, True)
    assert await sealed(call, group) == group
    refused = await refusal(call.job(group_id=group.id))
    assert (refused.code, refused.reason) == (StatusCode.FAILED_PRECONDITION, "GROUP_SEALED")
    await end(call, third)
    ended = await read(call, group)
    assert (ended.status, counts(ended), ended.progress) == (COMPLETED, {"completed": 3}, 100)
    assert ended.complete_time == (await read(call, third)).complete_time
    assert not ended.HasField("error")
    assert await sealed(call, group) == ended
    assert [job.id for job in await children(call, group)] == [first.id, second.id, third.id]


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        (["MarkCompleted", "MarkFailed"], PARTIAL),
        (["MarkPartial", "MarkFailed"], PARTIAL),
        (["MarkCompleted", "MarkPartial"], PARTIAL),
        (["MarkFailed", "MarkFailed"], FAILED),
        ([], COMPLETED),
    ],
)
async def test_its_state_follows_from_those_of_its_jobs(
    call: Caller, ends: list[str], status: int
) -> None:
    group = await call.job(job_type="album", group=GROUP)
    jobs = [await call.job(group_id=group.id) for _ in ends]
    await sealed(call, group)
    for job, how in zip(jobs, ends, strict=True):
        await end(call, job, how)
    ended = await read(call, group)
    assert ended.status == status
    if status == COMPLETED:
        assert not ended.HasField("error")
        return
    assert ended.error.reason == "CHILDREN_FAILED"
    assert "of 2 jobs of the group" in ended.error.message


@both_databases
async def test_one_call_creates_a_group_with_all_its_jobs(call: Caller) -> None:
    """Groups within groups too, named by their index; all or none."""
    within = job_service_pb2.CreateJobRequest(
        job_type="disc", group=SEALED, group_index=0, request_id="disc"
    )
    requests = [
        request("album", group=SEALED, request_id="album"),
        within,
        request("page", group_index=1, request_id="1"),
        request("page", group_index=1, request_id="2"),
        request("cover", group_index=0, request_id="3"),
    ]
    answer = await call.BatchCreateJobs(user_id="ada", requests=requests)
    album, disc, *pages, cover = answer.jobs
    assert [album.version, disc.version] == [1, 1]
    assert (counts(album), counts(disc)) == ({"queued": 2}, {"queued": 2})
    assert (await read(call, album)).group == album.group
    again = await call.BatchCreateJobs(user_id="ada", requests=requests)
    assert [job.id for job in again.jobs] == [job.id for job in answer.jobs]
    for job in pages:
        await end(call, job)
    disc, album = await read(call, disc), await read(call, album)
    assert (disc.status, album.status) == (COMPLETED, PROCESSING)
    assert counts(album) == {"queued": 1, "completed": 1}
    await end(call, cover, "MarkFailed")
    assert (await read(call, album)).status == PARTIAL


@both_databases
async def test_a_repeated_call_may_add_to_its_group(call: Caller) -> None:
    group = request("album", group=GROUP, request_id="album")
    first = request("page", group_index=0, request_id="1")
    album, page = (await call.BatchCreateJobs(user_id="ada", requests=[group, first])).jobs
    more = [group, first, request("page", group_index=0, request_id="2")]
    again = (await call.BatchCreateJobs(user_id="ada", requests=more)).jobs
    assert [job.id for job in again[:2]] == [album.id, page.id]
    assert again[2].group_id == album.id
    assert counts(await read(call, album)) == {"queued": 2}
    # Two callers do so at once, and the group is new for both.
    other = request("album", group=GROUP, request_id="other")
    asked = (
        call.BatchCreateJobs(user_id="ada", requests=[other, request("page", group_index=0)])
        for _ in range(2)
    )
    one, two = [answer.jobs for answer in await asyncio.gather(*asked)]
    assert one[0].id == two[0].id
    assert counts(await read(call, one[0])) == {"queued": 2}
    await sealed(call, album)
    refused = await refusal(
        call.BatchCreateJobs(user_id="ada", requests=[group, request("page", group_index=0)])
    )
    assert refused.reason == "GROUP_SEALED"


async def test_a_batch_adds_to_groups_and_ends_them(call: Caller) -> None:
    group = await call.job(job_type="album", group=GROUP)
    jobs = (
        await call.BatchCreateJobs(
            user_id="ada", requests=[request(group_id=group.id) for _ in range(20)]
        )
    ).jobs
    group = await read(call, group)
    assert (counts(group), group.version) == ({"queued": 20}, 2)  # once a commit
    await sealed(call, group)
    claimed = (await call.ClaimJobs(worker_id="w", job_types=["render"], max_jobs=20)).jobs
    assert {job.id for job in claimed} == {job.id for job in jobs}
    group = await read(call, group)
    assert (group.status, counts(group), group.version) == (PROCESSING, {"processing": 20}, 4)
    await asyncio.gather(*(call.MarkCompleted(job_id=job.id, attempt=1) for job in claimed))
    group = await read(call, group)
    assert (group.status, counts(group)) == (COMPLETED, {"completed": 20})
    assert group.version <= 4 + 20


async def test_no_worker_runs_a_group(call: Caller) -> None:
    group = await call.job(group=GROUP)
    assert not (await call.ClaimJobs(worker_id="w", job_types=["render"])).jobs
    for refused in (
        call.TransitionJob(job_id=group.id, target_status=PROCESSING, worker_id="w"),
        call.MarkCompleted(job_id=group.id, attempt=1),
        call.UpdateProgress(job_id=group.id, attempt=1, progress={"progress": 3}),
        call.AppendOutput(job_id=group.id, attempt=1, data=b"x", number=1),
        call.CreateAsset(
            job_id=group.id, attempt=1, asset={"asset": {"asset_type": "a", "url": "https://x"}}
        ),
        call.ReleaseJob(job_id=group.id, attempt=1),
        call.UpdateJob(job_id=group.id, user_id="ada", priority=3),
    ):
        found = await refusal(refused)
        assert (found.code, found.reason) == (StatusCode.FAILED_PRECONDITION, "IS_A_GROUP")


async def test_who_may_add_to_a_group(call: Caller) -> None:
    group, plain = await call.job(group=GROUP), await call.job()
    cases = [
        (call.job(user_id="bob", group_id=group.id), "JOB_NOT_FOUND"),
        (call.job(group_id="no-such-job"), "JOB_NOT_FOUND"),
        (call.job(group_id=plain.id), "NOT_A_GROUP"),
        (call.SealGroup(job_id=plain.id, user_id="ada"), "NOT_A_GROUP"),
        (call.SealGroup(job_id=group.id, user_id="bob"), "JOB_NOT_FOUND"),
    ]
    for refused, reason in cases:
        assert (await refusal(refused)).reason == reason
    # A batch is created as a whole or not at all.
    requests = [request(group_id=group.id), request(group_id=plain.id)]
    refused = await refusal(call.BatchCreateJobs(user_id="ada", requests=requests))
    assert (refused.reason, refused.metadata["job_id"]) == ("NOT_A_GROUP", plain.id)
    assert (await read(call, group)).group.total == 0
    assert not await children(call, group)


async def test_groups_are_eight_levels_deep(call: Caller) -> None:
    group = await call.job(group=GROUP)
    for _ in range(MAX_GROUP_LEVELS - 1):
        group = await call.job(group=GROUP, group_id=group.id)
    refused = await refusal(call.job(group=GROUP, group_id=group.id))
    assert (refused.reason, refused.metadata["limit"]) == ("LIMIT_EXCEEDED", "group_levels")
    job = await call.job(group_id=group.id)
    await end(call, job)
    while group.group_id:
        assert (await sealed(call, group)).status == COMPLETED
        group = await read(call, job_pb2.Job(id=group.group_id, user_id="ada"))
        assert counts(group) == {"completed": 1}


async def test_a_creation_is_repeated_with_its_group(call: Caller) -> None:
    group, other = [await call.job(group=GROUP) for _ in range(2)]
    job = await call.job(group_id=group.id, request_id="r")
    assert (await call.job(group_id=group.id, request_id="r")).id == job.id
    for fields in ({}, {"group_id": other.id}, {"group_id": group.id, "group": GROUP}):
        refused = await refusal(call.job(request_id="r", **fields))
        assert refused.reason == "REQUEST_ID_REUSED"
    await sealed(call, group)
    assert (await call.job(group_id=group.id, request_id="r")).id == job.id
    same = await call.job(group=FAIL_FAST, request_id="g")
    assert (await call.job(group=FAIL_FAST, request_id="g")).id == same.id
    assert (await refusal(call.job(group=GROUP, request_id="g"))).reason == "REQUEST_ID_REUSED"


@both_databases
async def test_cancelling_a_group_cancels_its_jobs(call: Caller) -> None:
    group = await call.job(job_type="album", group=GROUP)
    inner = await call.job(job_type="disc", group=GROUP, group_id=group.id)
    jobs = [await call.job(group_id=each.id) for each in (group, inner)]
    running = await call.running(group_id=group.id)
    asked = (await call.CancelJob(job_id=group.id, user_id="ada", reason="enough")).job
    assert (asked.status, asked.group.sealed) == (PROCESSING, True)
    assert (asked.cancel_request_time.seconds > 0, asked.cancel_reason) == (True, "enough")
    async with watching(call.WatchJob(job_id=running.id, user_id="ada")) as stream:
        while not (await stream.read()).job.HasField("cancel_request_time"):
            pass
    await call.MarkFailed(job_id=running.id, attempt=1, finish={"error": {"message": "stopped"}})
    async with watching(call.WatchJob(job_id=group.id, user_id="ada")) as stream:
        async for message in stream:
            last = message.job
    assert last.status == FAILED
    assert (last.error.reason, last.error.message) == ("CANCELLED", "enough")
    for job in (*jobs, inner):
        ended = await read(call, job)
        assert (ended.status, ended.error.reason, ended.error.message) == (
            *(FAILED, "CANCELLED", "enough"),
        )
    again = (await call.CancelJob(job_id=group.id, user_id="ada")).job
    assert again.version == last.version
    empty = await call.job(group=GROUP)
    ended = (await call.CancelJob(job_id=empty.id, user_id="ada", reason="enough")).job
    ended = await read(call, ended)
    assert (ended.status, ended.cancelled, ended.error.message) == (FAILED, True, "enough")


@both_databases
async def test_the_first_failure_cancels_the_others(call: Caller) -> None:
    group = await call.job(job_type="album", group=FAIL_FAST)
    jobs = [await call.job(group_id=group.id) for _ in range(3)]
    await end(call, jobs[0])
    await end(call, jobs[1], "MarkFailed")
    async with watching(call.WatchJob(job_id=group.id, user_id="ada")) as stream:
        async for message in stream:
            last = message.job
    assert (last.status, counts(last)) == (PARTIAL, {"completed": 1, "failed": 2})
    assert last.error.reason == "CHILDREN_FAILED"
    third = await read(call, jobs[2])
    assert third.error.message == "another job of the group has failed"


@both_databases
async def test_a_group_is_deleted_with_its_jobs(call: Caller) -> None:
    requests = [
        request("album", group=SEALED),
        job_service_pb2.CreateJobRequest(job_type="disc", group=SEALED, group_index=0),
        *(request(group_index=index % 2) for index in range(6)),
    ]
    album, _, *jobs = (await call.BatchCreateJobs(user_id="ada", requests=requests)).jobs
    early = await refusal(call.DeleteJob(job_id=album.id, user_id="ada"))
    assert early.reason == "ILLEGAL_TRANSITION"
    for job in jobs:
        await end(call, job)
    child = await refusal(call.DeleteJob(job_id=jobs[0].id, user_id="ada"))
    assert (child.code, child.reason) == (StatusCode.FAILED_PRECONDITION, "JOB_IN_GROUP")
    bulk = await call.DeleteJobs(user_id="ada", filter={"group_id": album.id})
    assert (bulk.changed, bulk.done) == (0, True)  # it passes over jobs of groups
    await call.DeleteJob(job_id=album.id, user_id="ada")
    assert not (await call.ListJobs(user_id="ada")).jobs


@both_databases
async def test_rerunning_a_group_runs_what_failed(call: Caller) -> None:
    requests = [
        request("album", group=SEALED, labels={"of": "ada"}),
        job_service_pb2.CreateJobRequest(job_type="disc", group=SEALED, group_index=0),
        request(group_index=0, parameters={"page": 1}),
        request(group_index=0, parameters={"page": 2}),
        request(group_index=1, parameters={"page": 3}),
        request(group_index=1, parameters={"page": 4}),
    ]
    album, _, *jobs = (await call.BatchCreateJobs(user_id="ada", requests=requests)).jobs
    early = await refusal(call.RerunJob(job_id=album.id, user_id="ada"))
    assert early.reason == "ILLEGAL_TRANSITION"
    for job, how in zip(jobs, ["MarkCompleted", "MarkFailed"] * 2, strict=True):
        await end(call, job, how)
    new = (await call.RerunJob(job_id=album.id, user_id="ada")).job
    assert (new.origin_job_id, new.labels["of"], new.group.sealed) == (album.id, "ada", True)
    assert (await call.RerunJob(job_id=album.id, user_id="ada")).job.id == new.id
    found = await children(call, new)
    inner = next(each for each in found if each.HasField("group"))
    again = [each for each in (*found, *await children(call, inner)) if not each.HasField("group")]
    assert {each.origin_job_id for each in again} == {jobs[1].id, jobs[3].id}
    pages = await call.BatchGetJobs(
        user_id="ada", job_ids=[each.id for each in again], view="JOB_VIEW_FULL"
    )
    assert sorted(each.parameters["page"] for each in pages.jobs) == [2, 4]
    for each in again:
        await end(call, each)
    assert (await read(call, new)).status == COMPLETED


async def test_a_group_that_nobody_seals(call: Caller) -> None:
    soon = Duration(seconds=1)
    empty = await call.job(group=GROUP, queue_timeout=soon)
    filled = await call.job(group=GROUP, queue_timeout=soon)
    job = await call.job(group_id=filled.id)
    async with watching(call.WatchJob(job_id=empty.id, user_id="ada")) as stream:
        async for message in stream:
            last = message.job
    assert (last.status, last.error.reason) == (FAILED, "QUEUE_EXPIRED")
    async with watching(call.WatchJob(job_id=filled.id, user_id="ada")) as stream:
        while not (await stream.read()).job.group.sealed:
            pass
    await end(call, job)
    assert (await read(call, filled)).status == COMPLETED


@both_databases
async def test_watching_the_jobs_of_a_group(call: Caller) -> None:
    group = await call.job(group=GROUP)
    job, _ = await call.job(group_id=group.id), await call.job()
    stream = call.WatchJobs(user_id="ada", group_id=group.id)
    async with watching(stream):
        seen = []
        while not any(event.synced for event in seen):
            seen += events(await stream.read())
        assert {event.job.id for event in seen if event.job} == {job.id}
        other = await call.job(group_id=group.id)
        while not any(event.job and event.job.id == other.id for event in seen):
            seen += events(await stream.read())
    assert {event.job.id for event in seen if event.job} == {job.id, other.id}


@several_servers
async def test_children_end_at_several_servers(start: Callable[..., Any]) -> None:
    """Each server knows the group as it was; the commits of all are in its counts."""
    servers: list[App] = [await start() for _ in range(3)]
    async with (
        calling(servers[0].address) as one,
        calling(servers[1].address) as two,
        calling(servers[2].address) as three,
    ):
        group = await one.job(group=GROUP)
        requests = [request(group_id=group.id) for _ in range(30)]
        jobs = (await two.BatchCreateJobs(user_id="ada", requests=requests)).jobs
        async with watching(three.WatchJob(job_id=group.id, user_id="ada")) as stream:
            assert (await anext(aiter(stream))).job.id == group.id
            await asyncio.gather(
                *(
                    end(
                        (one, two, three)[index % 3],
                        job,
                        ("MarkCompleted", "MarkFailed")[index % 2],
                    )
                    for index, job in enumerate(jobs)
                ),
                sealed(two, group),
            )
            async for message in stream:
                last = message.job
    assert (last.status, counts(last)) == (PARTIAL, {"completed": 15, "failed": 15})
