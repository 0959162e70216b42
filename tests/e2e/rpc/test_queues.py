"""QueueService: what operators set holds at once, and what they read is what there is."""

import asyncio
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from jobledger.v1 import queue_service_pb2 as pb
from jobledger_server.sql import queue_settings
from jobledger_server.tuning import Tuning
from tests.support.access_file import rule
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import FAILED, PROCESSING, Caller, refusal

WAIT = {"seconds": 20}
"""How long a claim waits in a test: far longer than a wake-up takes."""


async def claim(call: Caller, job_type: str = "render", **fields: Any) -> list[str]:
    answer = await call.ClaimJobs(worker_id="w", job_types=[job_type], **fields)
    return [job.id for job in answer.jobs]


async def counts(call: Caller, job_type: str = "render") -> tuple[int, int, int, int]:
    (found,) = (await call.ListJobTypeStats(job_types=[job_type])).stats
    return found.ready, found.blocked, found.scheduled, found.held


def the(answer: Any, kind: str) -> Any:
    """Return the only reason of a kind."""
    (reason,) = [getattr(each, kind) for each in answer.reasons if each.HasField(kind)]
    return reason


async def reasons(call: Caller, job: Any, **fields: Any) -> list[str]:
    """Return what kinds of reasons keep a job, but for whether a worker asks for its type."""
    found = (await call.ExplainJob(job_id=job.id, **fields)).reasons
    kinds = [reason.WhichOneof("reason") for reason in found]
    return [kind for kind in kinds if kind != "no_worker"]


async def test_a_paused_type_starts_nothing_until_it_is_resumed(call: Caller) -> None:
    held, waiting = await call.job(), await call.job()
    assert await claim(call) == [held.id]
    pause = (await call.PauseJobType(job_type="render", reason="printer on fire")).pause
    assert (pause.reason, pause.actor) == ("printer on fire", "")
    assert await claim(call) == []
    refused = await refusal(
        call.TransitionJob(job_id=waiting.id, target_status=PROCESSING, worker_id="w")
    )
    assert (refused.code, refused.reason) == (StatusCode.FAILED_PRECONDITION, "PAUSED")
    assert (await call.MarkCompleted(job_id=held.id, attempt=1)).job.id == held.id
    again = (await call.PauseJobType(job_type="render", reason="other")).pause
    assert again == pause
    (stats,) = (await call.ListJobTypeStats(job_types=["render"])).stats
    assert (stats.pause, stats.ready) == (pause, 1)
    await call.ResumeJobType(job_type="render")
    await call.ResumeJobType(job_type="render")
    assert await claim(call) == [waiting.id]


@pytest.mark.parametrize("tuning", [Tuning(look_seconds=3600)])  # they are woken, or go without
async def test_a_resumed_type_and_a_higher_limit_wake_the_claims_that_wait(
    call: Caller, app: Any
) -> None:
    await call.PauseJobType(job_type="render")
    await call.SetConcurrencyLimit(name="stripe", max_running=1)
    first, second = [await call.job(concurrency_key="stripe:eu") for _ in range(2)]
    for resumed, job in (
        (partial(call.ResumeJobType, job_type="render"), first),
        (partial(call.SetConcurrencyLimit, name="stripe:eu", max_running=2), second),
    ):
        waiting = asyncio.create_task(claim(call, wait=WAIT))
        while not (app.claim_waiters.count("render") or waiting.done()):
            await asyncio.sleep(0.01)
        await resumed()
        async with asyncio.timeout(10):  # at the end of its wait the claim would look once more
            assert await waiting == [job.id]


async def test_a_limit_bounds_what_is_held(call: Caller) -> None:
    first, second = [await call.job(concurrency_key="stripe:eu") for _ in range(2)]
    limit = (await call.SetConcurrencyLimit(name="stripe", max_running=1)).limit
    assert (limit.name, limit.max_running, limit.running) == ("stripe", 1, 0)
    assert await claim(call) == [first.id]
    assert await claim(call) == []
    assert await counts(call) == (0, 1, 0, 1)
    assert await reasons(call, second) == ["concurrency_limit"]
    (listed,) = (await call.ListConcurrencyLimits()).limits
    assert (listed.name, listed.running, listed.blocked) == ("stripe", 1, 1)


async def test_a_paused_key_starts_nothing_until_it_is_resumed(call: Caller) -> None:
    paused = (await call.PauseConcurrencyKey(name="k", reason="why")).limit
    assert (paused.pause.reason, paused.HasField("max_running")) == ("why", False)
    job = await call.job(concurrency_key="k:1")
    other = await call.job(concurrency_key="kk")
    assert await claim(call, max_jobs=2) == [other.id]
    assert await claim(call) == []
    reason = the(await call.ExplainJob(job_id=job.id), "paused")
    assert (reason.concurrency_key, reason.pause) == ("k", paused.pause)
    assert (await call.PauseConcurrencyKey(name="k", reason="other")).limit.pause == paused.pause
    await call.ResumeConcurrencyKey(name="k")
    assert await claim(call, wait=WAIT) == [job.id]
    assert not (await call.ListConcurrencyLimits()).limits


async def test_limits_are_listed_in_pages_by_any_name(call: Caller) -> None:
    names = ["a", "b:1", "b:2", "gr\u00f6\u00dfe", "z"]
    for name in names:
        await call.SetConcurrencyLimit(name=name, max_running=1)
    listed, token = [], ""
    while True:
        page = await call.ListConcurrencyLimits(page_size=2, page_token=token)
        listed += [limit.name for limit in page.limits]
        token = page.next_page_token
        if not token:
            break
    assert sorted(listed) == sorted(names)
    assert len(listed) == len(names)


async def test_stats_count_what_waits_is_held_and_has_ended(call: Caller) -> None:
    failed = await call.running()
    await call.MarkFailed(
        job_id=failed.id, attempt=1, finish={"error": {"reason": "OOM", "message": "m"}}
    )
    await call.running()
    await call.job(priority=9)
    await call.job(fairness_key="acme")
    later = Timestamp(seconds=failed.create_time.seconds + 3600)
    await call.job(schedule_time=later)
    await call.job(job_type="export")
    page = await call.ListJobTypeStats()
    assert [each.job_type for each in page.stats] == ["export", "render"]
    stats = page.stats[1]
    assert (stats.ready, stats.blocked, stats.scheduled, stats.held) == (2, 0, 1, 1)
    assert stats.priorities[0] == pb.PriorityStats(priority=9, ready=1)
    assert stats.priorities[1] == pb.PriorityStats(priority=5, ready=1, scheduled=1, held=1)
    ended = [pb.EndedJobs(status=FAILED, reason="OOM", count=1)]
    assert (list(stats.ended_last_minute), list(stats.ended_last_hour)) == (ended, ended)
    assert stats.oldest_wait.ToMicroseconds() > 0
    first = await call.ListJobTypeStats(page_size=1)
    second = await call.ListJobTypeStats(page_size=1, page_token=first.next_page_token)
    assert [each.job_type for each in second.stats] == ["render"]
    assert not second.next_page_token
    (own,) = (await call.ListJobTypeStats(fairness_key="acme")).stats
    assert (own.job_type, own.ready, own.held) == ("render", 1, 0)
    bad = await refusal(
        call.ListJobTypeStats(fairness_key="acme", page_token=first.next_page_token)
    )
    assert bad.reason == "INVALID_TOKEN"


async def test_explain_says_everything_that_keeps_a_job(call: Caller) -> None:
    job = await call.job()
    later = Timestamp(seconds=job.create_time.seconds + 3600)
    scheduled = await call.job(schedule_time=later)
    unpolled = (await call.ExplainJob(job_id=job.id)).reasons
    assert unpolled[0].no_worker.job_type == "render"
    assert await reasons(call, job) == ["queued"]
    await call.job(priority=9)
    behind = (await call.ExplainJob(job_id=(await call.job()).id)).reasons[-1].queued
    assert behind == pb.WaitReason.Queued(ahead=1, higher_priority=1, tenants=1)
    assert await reasons(call, scheduled) == ["scheduled"]
    await call.PauseJobType(job_type="render")
    assert await reasons(call, scheduled) == ["paused", "scheduled"]
    assert await reasons(call, job) == ["paused", "queued"]
    assert (await call.ExplainJob(job_id=job.id)).job == job
    running = await call.running(job_type="other")
    assert await reasons(call, running) == []


async def test_an_owner_is_told_of_its_own_jobs_only(start_with: Any) -> None:
    rules = {
        "web": 'roles = ["owner"]\nusers = ["ada", "bob"]',
        "ada": 'roles = ["owner"]\nusers = ["ada"]',
        "farm": 'roles = ["worker"]\njob_types = ["*"]',
        "ops": 'roles = ["operator"]',
    }
    app = await start_with("".join(rule(*each) for each in rules.items()))
    async with grpc.aio.insecure_channel(app.address) as channel:
        web, ada, farm, ops = (Caller(channel, token=name) for name in rules)
        await ops.SetConcurrencyLimit(name="k", max_running=2)
        mine, theirs, job = [
            await web.job(user_id=user, concurrency_key="k") for user in ("ada", "bob", "ada")
        ]
        held = await claim(farm, max_jobs=2)
        held += await claim(farm, max_jobs=2) if len(held) < 2 else []
        blocked = next(each for each in (job, mine) if each.id not in held)
        await ops.PauseConcurrencyKey(name="k", reason="r")
        told = await ada.ExplainJob(job_id=blocked.id, user_id="ada")
        paused, limit = the(told, "paused"), the(told, "concurrency_limit")
        assert (paused.pause.actor, paused.pause.reason) == ("", "r")
        assert list(limit.holder_job_ids) == [each for each in held if each != theirs.id]
        assert (limit.running, limit.max_running) == (2, 2)
        all_of_it = await ops.ExplainJob(job_id=blocked.id)
        assert the(all_of_it, "paused").pause.actor == "token:ops"
        assert set(the(all_of_it, "concurrency_limit").holder_job_ids) == set(held)
        foreign = await refusal(ada.ExplainJob(job_id=theirs.id, user_id="ada"))
        assert foreign.reason == "JOB_NOT_FOUND"


@in_turn(
    ("method", "fields", "field"),
    [
        ("ListJobTypeStats", {"job_types": ["a b"]}, "job_types[0]"),
        ("ListJobTypeStats", {"fairness_key": "a\n"}, "fairness_key"),
        ("ListJobTypeStats", {"page_size": -1}, "page_size"),
        ("ExplainJob", {}, "job_id"),
        ("PauseJobType", {}, "job_type"),
        ("PauseJobType", {"job_type": "a", "reason": "x" * 513}, "reason"),
        ("ResumeJobType", {"job_type": "a b"}, "job_type"),
        ("SetConcurrencyLimit", {"max_running": 1}, "name"),
        ("SetConcurrencyLimit", {"name": "k", "max_running": -1}, "max_running"),
        ("SetConcurrencyLimit", {"name": "k", "max_running": 1_000_001}, "max_running"),
        ("PauseConcurrencyKey", {"name": "k" * 129}, "name"),
        ("ResumeConcurrencyKey", {}, "name"),
        ("ListConcurrencyLimits", {"page_size": -1}, "page_size"),
    ],
)
async def test_a_wrong_field_is_named(
    call: Caller, method: str, fields: dict[str, Any], field: str
) -> None:
    refused = await refusal(getattr(call, method)(**fields))
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert [each.field for each in refused.details["BadRequest"].field_violations] == [field]


async def test_there_are_only_so_many_pauses_and_limits(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_settings, "MAX_PAUSED_JOB_TYPES", 1)
    monkeypatch.setattr(queue_settings, "MAX_CONCURRENCY_LIMITS", 1)
    await call.PauseJobType(job_type="a")
    await call.SetConcurrencyLimit(name="a", max_running=1)
    for limit, refused in (
        ("paused_job_types", await refusal(call.PauseJobType(job_type="b"))),
        ("concurrency_limits", await refusal(call.SetConcurrencyLimit(name="b", max_running=1))),
        ("concurrency_limits", await refusal(call.PauseConcurrencyKey(name="b"))),
    ):
        assert (refused.code, refused.reason) == (StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
        assert (refused.metadata["limit"], refused.metadata["value"]) == (limit, "1")
    await call.PauseConcurrencyKey(name="a")  # the same one
    await call.PauseJobType(job_type="a")
