"""A job's life over the wire, and the lists."""

import asyncio
import uuid
from typing import Any

import pytest
from google.protobuf.struct_pb2 import Struct
from grpc import StatusCode

from jobledger_server.app import App
from tests.support.databases import both_databases
from tests.support.gated_store import Gate
from tests.support.rpc_caller import (
    BASIC,
    COMPLETED,
    FAILED,
    FULL,
    PARTIAL,
    PROCESSING,
    QUEUED,
    Caller,
    calling,
    refusal,
)

ASSET = {"asset_type": "image/png", "url": "https://e.example/ü.png", "storage_path": "s/1"}


def struct(**values: Any) -> Struct:
    made = Struct()
    made.update(values)
    return made


@both_databases
async def test_a_job_goes_from_creation_to_completion(call: Caller) -> None:
    parameters = struct(frames=240, scene={"name": "Café 🎬", "layers": [1, None, True]})
    job = await call.job(parameters=parameters, labels={"team": "red"})
    assert uuid.UUID(job.id).version == 7
    assert (job.user_id, job.job_type, job.status) == ("ada", "render", QUEUED)
    assert (job.progress, job.attempt, job.version) == (0, 0, 1)
    assert not job.HasField("parameters")  # the answer to a write has no payloads
    assert dict(job.labels) == {"team": "red"}
    assert job.create_time == job.update_time
    assert not job.HasField("start_time")

    job = (
        await call.TransitionJob(
            job_id=job.id,
            target_status=PROCESSING,
            worker_id="w1",
            progress={"progress_message": "warming up"},
        )
    ).job
    assert (job.status, job.attempt, job.worker_id, job.version) == (PROCESSING, 1, "w1", 2)
    assert job.held
    assert job.start_time == job.update_time
    assert job.progress_message == "warming up"

    report = await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": 40})
    assert (report.applied, report.job.progress, report.job.version) == (True, 40, 3)
    assert report.job.progress_message == "warming up"

    linked = {**ASSET, "file_size": 2**60, "sha256": "0F" * 32, "etag": '"1"'}
    asset = (await call.CreateAsset(job_id=job.id, attempt=1, asset={"asset": linked})).asset
    assert (asset.job_id, asset.user_id, asset.file_size) == (job.id, "ada", 2**60)
    assert (asset.url, asset.storage_path) == (ASSET["url"], "s/1")
    assert (asset.name, asset.sha256, asset.etag) == ("ü.png", "0f" * 32, '"1"')

    assets = [linked, {**ASSET, "name": "thumbnail"}]
    job = (
        await call.MarkCompleted(
            job_id=job.id, attempt=1, finish={"result": struct(ok=True), "assets": assets}
        )
    ).job
    assert (job.status, job.progress, job.version) == (COMPLETED, 100, 5)
    assert job.complete_time == job.update_time
    assert not job.held
    assert not job.HasField("error")

    full = (await call.GetJob(job_id=job.id, user_id="ada")).job
    assert (full.parameters, full.result) == (parameters, struct(ok=True))
    assert (await call.GetJob(job_id=job.id, user_id="ada", view=BASIC)).job == job
    steps = (await call.ListTransitions(job_id=job.id, user_id="ada")).transitions
    assert [(s.from_status, s.to_status, s.version, s.attempt, s.actor) for s in steps] == [
        (QUEUED, PROCESSING, 2, 1, "w1"),
        (PROCESSING, COMPLETED, 5, 1, "w1"),
    ]
    assert steps[0].time == job.start_time
    assets = (await call.ListAssets(job_id=job.id, user_id="ada")).assets
    assert assets[0] == asset
    assert [each.name for each in assets] == ["ü.png", "thumbnail"]


@pytest.mark.parametrize(
    ("end", "status", "progress"),
    [("MarkPartial", PARTIAL, 100), ("MarkFailed", FAILED, 30)],
)
async def test_a_job_is_failed_with_its_error(
    call: Caller, end: str, status: int, progress: int
) -> None:
    job = await call.running()
    await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": 30})
    error = {"reason": "DISK_FULL", "message": "no space", "details": struct(free=0)}
    finish = {"error": error, "result": struct(done=3), "assets": [ASSET]}
    fields = {"job_id": job.id, "attempt": 1, "finish": finish}
    job = (await getattr(call, end)(**fields)).job
    assert (job.status, job.progress) == (status, progress)
    assert (job.error.reason, job.error.message) == ("DISK_FULL", "no space")
    assert not job.error.HasField("details")
    full = (await call.GetJob(job_id=job.id, user_id="ada")).job
    assert full.error.details == struct(free=0)
    assert full.result == struct(done=3)
    (_, last) = (await call.ListTransitions(job_id=job.id, user_id="ada")).transitions
    assert last.reason == "DISK_FULL"
    # A retry after a lost answer.
    assert (await getattr(call, end)(**fields)).job == job
    assert (await call.TransitionJob(target_status=status, **fields)).job == job
    assert len((await call.ListAssets(job_id=job.id, user_id="ada")).assets) == 1


async def test_lower_progress_is_no_error_and_a_late_report_changes_nothing(call: Caller) -> None:
    job = await call.running()
    await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": 50})
    news = {"progress": 49, "progress_message": "l"}
    lower = await call.UpdateProgress(job_id=job.id, attempt=1, progress=news)
    assert (lower.applied, lower.job.progress, lower.job.progress_message) == (True, 50, "l")
    ended = (await call.MarkCompleted(job_id=job.id, attempt=1)).job
    late = await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": 60})
    assert (late.applied, late.job) == (False, ended)


async def test_empty_parameters_are_none(call: Caller) -> None:
    job = await call.job(request_id="r", parameters=struct())
    assert await call.job(request_id="r") == job
    assert not (await call.GetJob(job_id=job.id, user_id="ada")).job.HasField("parameters")


async def test_a_full_list_has_each_job_as_it_was_listed(gated: App) -> None:
    """The payloads are read after the jobs, which may have finished or gone by then."""
    async with calling(gated.address) as call:
        finishes = await call.running(parameters=struct(n=1))
        goes = await call.ended(parameters=struct(n=2))
        gate = gated.store.before_read = Gate()
        listing = asyncio.ensure_future(call.ListJobs(user_id="ada", view=FULL))
        await gate.reached.wait()
        await call.MarkCompleted(job_id=finishes.id, attempt=1, finish={"result": struct(n=3)})
        await call.DeleteJob(job_id=goes.id, user_id="ada")
        gate.open()
        (job,) = (await listing).jobs
    assert (job.parameters, job.HasField("result")) == (struct(n=1), False)
    job.ClearField("parameters")
    assert job == finishes


async def test_jobs_are_paged_newest_first_without_gap_or_duplicate(call: Caller) -> None:
    ids = [(await call.job()).id for _ in range(7)]
    await call.job("bob")
    whole = await call.ListJobs(user_id="ada", page_size=7)
    assert (len(whole.jobs), whole.next_page_token) == (7, "")
    seen: list[str] = []
    token = ""
    sizes = []
    while True:
        page = await call.ListJobs(user_id="ada", page_size=3, page_token=token)
        seen += [job.id for job in page.jobs]
        sizes.append(len(page.jobs))
        await call.job()  # newer jobs do not disturb the pages that follow
        token = page.next_page_token
        if not token:
            break
    assert seen == ids[::-1]
    assert sizes == [3, 3, 1]


async def test_a_view_is_no_part_of_a_page_token(call: Caller) -> None:
    ids = [(await call.job(parameters=struct(a=1))).id for _ in range(2)]
    page = await call.ListJobs(user_id="ada", page_size=1)
    assert [(job.id, job.HasField("parameters")) for job in page.jobs] == [(ids[1], False)]
    token = page.next_page_token
    page = await call.ListJobs(user_id="ada", view=FULL, page_token=token)
    assert [(job.id, job.HasField("parameters")) for job in page.jobs] == [(ids[0], True)]


async def test_a_page_size_of_0_means_50_and_more_than_1000_means_1000(call: Caller) -> None:
    requests = [{"job_type": "render"}] * 501
    for _ in range(2):
        await call.BatchCreateJobs(user_id="ada", requests=requests)
    for size, jobs in ((0, 50), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)):
        page = await call.ListJobs(user_id="ada", page_size=size)
        assert len(page.jobs) == jobs
        assert page.next_page_token


async def test_every_filter_of_a_list_is_applied(call: Caller) -> None:
    """And several filters together."""
    await call.SetConcurrencyLimit(name="stripe", max_running=1)
    red = {"labels": {"team/a": "red"}}
    failed = await call.running(**red)
    error = {"reason": "DISK_FULL", "message": "m"}
    await call.MarkFailed(job_id=failed.id, attempt=1, finish={"error": error})
    held = await call.running(concurrency_key="stripe")
    export = await call.job(job_type="export", **red)
    blocked = await call.job(concurrency_key="stripe", request_id="r")
    await call.ClaimJobs(worker_id="w2", job_types=["render"])  # which finds that it is blocked
    later = await call.job(unique_key="b", delay={"seconds": 1000})
    rerun = (await call.RerunJob(job_id=failed.id, user_id="ada", request_id="again")).job
    await call.job("bob", unique_key="b", request_id="r")
    names = {
        failed.id: "failed",
        held.id: "held",
        export.id: "export",
        blocked.id: "blocked",
        later.id: "later",
        rerun.id: "rerun",
    }
    for filters, found in (
        ({}, "rerun later blocked export held failed"),
        ({"statuses": [PROCESSING]}, "held"),
        ({"statuses": [PROCESSING, FAILED], "job_types": ["render"]}, "held failed"),
        ({"job_types": ["export"]}, "export"),
        (red, "rerun export failed"),
        ({"created_after": blocked.create_time}, "rerun later"),
        ({"created_before": held.create_time}, "failed"),
        ({"unique_key": "b"}, "later"),
        ({"unique_key": "b", "statuses": [FAILED]}, ""),
        ({"unique_key": "none"}, ""),
        ({"request_id": "r"}, "blocked"),
        ({"request_id": "r", "concurrency_key": "other"}, ""),
        ({"concurrency_key": "stripe"}, "blocked held"),
        ({"worker_id": "w1"}, "held failed"),
        ({"phases": ["JOB_PHASE_BLOCKED"]}, "blocked"),
        ({"phases": ["JOB_PHASE_SCHEDULED", "JOB_PHASE_HELD"]}, "later held"),
        ({"error_reasons": ["DISK_FULL", "OTHER"]}, "failed"),
        ({"error_reasons": ["OTHER"]}, ""),
        ({"origin_job_id": failed.id}, "rerun"),
        ({"held": True}, "held"),
        ({"held": False, "job_types": ["export"]}, "export"),
    ):
        jobs = (await call.ListJobs(user_id="ada", filter=filters)).jobs
        assert " ".join(names[job.id] for job in jobs) == found, filters


async def test_a_request_id_is_shown_to_the_owner_and_not_to_workers(call: Caller) -> None:
    await call.job(request_id="r")
    (claimed,) = (await call.ClaimJobs(worker_id="w", job_types=["render"])).jobs
    done = (await call.MarkCompleted(job_id=claimed.id, attempt=1)).job
    assert (claimed.request_id, done.request_id) == ("", "")
    own = {"job_id": claimed.id, "user_id": "ada"}
    watched = await call.WatchJob(**own).read()
    batch = await call.BatchGetJobs(user_id="ada", job_ids=[claimed.id])
    shown = [
        (await call.GetJob(**own)).job,
        (await call.CreateJob(user_id="ada", job_type="render", request_id="r")).job,
        (await call.CancelJob(**own)).job,
        (await call.ExplainJob(**own)).job,
        watched.job,
        *batch.jobs,
        *(await call.ListJobs()).jobs,
    ]
    assert [job.request_id for job in shown] == ["r"] * 7
    rerun = (await call.RerunJob(**own, request_id="again")).job
    assert rerun.request_id == "again"


async def test_a_page_token_is_good_for_its_own_query_only(call: Caller) -> None:
    job = await call.running()
    other = await call.running()
    for target in (job, other):
        for i in range(3):
            await call.CreateAsset(
                job_id=target.id,
                attempt=1,
                asset={"asset": {"asset_type": "t", "storage_path": f"{i}"}},
            )
    jobs = (await call.ListJobs(user_id="ada", page_size=1)).next_page_token
    assets = (await call.ListAssets(job_id=job.id, user_id="ada", page_size=1)).next_page_token
    assert jobs
    assert assets
    flipped = ("A" if jobs[5] != "A" else "B").join((jobs[:5], jobs[6:]))
    for called in (
        call.ListJobs(user_id="ada", page_token=flipped),
        call.ListJobs(user_id="ada", page_token=jobs[:-4]),
        call.ListJobs(user_id="ada", page_token=jobs + "AAAA"),
        call.ListJobs(user_id="ada", page_token="ü"),
        call.ListJobs(user_id="bob", page_token=jobs),
        call.ListJobs(user_id="ada", filter={"statuses": [QUEUED]}, page_token=jobs),
        call.ListJobs(user_id="ada", filter={"labels": {"a": "b"}}, page_token=jobs),
        call.ListJobs(user_id="ada", filter={"held": True}, page_token=jobs),
        call.ListJobs(user_id="ada", filter={"error_reasons": ["A"]}, page_token=jobs),
        call.ListJobs(user_id="ada", filter={"origin_job_id": other.id}, page_token=jobs),
        call.ListJobs(user_id="ada", page_token=assets),
        call.ListAssets(job_id=other.id, user_id="ada", page_token=assets),
        call.ListTransitions(job_id=job.id, user_id="ada", page_token=assets),
        call.ListAttempts(job_id=job.id, user_id="ada", page_token=assets),
    ):
        refused = await refusal(called)
        assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_TOKEN")
    page = await call.ListJobs(user_id="ada", page_size=5, page_token=jobs)
    assert [found.id for found in page.jobs] == [job.id]


async def test_assets_and_transitions_are_paged_oldest_first(call: Caller) -> None:
    job = await call.running()
    for i in range(5):
        await call.CreateAsset(
            job_id=job.id, attempt=1, asset={"asset": {"asset_type": "t", "storage_path": f"{i}"}}
        )
    await call.MarkCompleted(
        job_id=job.id, attempt=1, finish={"assets": [{"asset_type": "t", "storage_path": "5"}]}
    )
    paths: list[str] = []
    token = ""
    while True:
        page = await call.ListAssets(job_id=job.id, user_id="ada", page_size=2, page_token=token)
        paths += [asset.storage_path for asset in page.assets]
        token = page.next_page_token
        if not token:
            break
    assert paths == list("012345")
    first = await call.ListTransitions(job_id=job.id, user_id="ada", page_size=1)
    second = await call.ListTransitions(
        job_id=job.id, user_id="ada", page_size=1, page_token=first.next_page_token
    )
    assert [s.to_status for s in (*first.transitions, *second.transitions)] == [
        PROCESSING,
        COMPLETED,
    ]
    assert second.next_page_token == ""
