"""What a caller may choose for the jobs that it creates, and for those that it repeats."""

from typing import Any

import grpc
import pytest
from grpc import StatusCode

from tests.support.access_file import rule
from tests.support.databases import sqlite_only
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import Caller, refusal

pytestmark = sqlite_only  # permissions do not reach a database

OWNER = 'roles = ["owner"]\nusers = ["*"]\n'
RULES = "".join(
    (
        rule("plain", OWNER),
        rule(
            "web",
            f'{OWNER}fairness = "any"\nmax_priority = 7\ncreate_types = ["render"]\n'
            'concurrency_keys = ["gpu", "model:*", "customer:{user}"]',
        ),
        rule("any", f'{OWNER}fairness = "any"\nmax_priority = 9\nconcurrency_keys = ["*"]'),
        rule("farm", 'roles = ["worker"]\njob_types = ["*"]'),
        rule("ops", 'roles = ["operator"]'),
    )
)


@pytest.fixture
async def channel(start_with: Any) -> Any:
    app = await start_with(RULES)
    async with grpc.aio.insecure_channel(app.address) as channel:
        yield channel


@in_turn(
    ("name", "choice", "missing"),
    [
        ("plain", {}, None),
        ("plain", {"priority": 5, "fairness_key": "ada", "job_type": "other"}, None),
        ("plain", {"priority": 6}, ("max_priority", "6")),
        ("plain", {"fairness_key": "eve"}, ("fairness", "eve")),
        ("plain", {"concurrency_key": "stripe"}, None),
        ("web", {"priority": 7, "fairness_key": "eve", "concurrency_key": "gpu"}, None),
        ("web", {"priority": 8}, ("max_priority", "8")),
        ("web", {"job_type": "other"}, ("create_types", "other")),
        ("web", {"concurrency_key": "model:a:b"}, None),
        ("web", {"concurrency_key": "model"}, ("concurrency_keys", "model")),
        ("web", {"concurrency_key": "gpu2"}, ("concurrency_keys", "gpu2")),
        ("web", {"concurrency_key": "customer:ada"}, None),
        ("web", {"concurrency_key": "customer:eve"}, ("concurrency_keys", "customer:eve")),
        ("web", {"concurrency_key": "customer:{user}"}, ("concurrency_keys", "customer:{user}")),
        ("any", {"priority": 9, "fairness_key": "eve", "concurrency_key": "x"}, None),
    ],
)
async def test_a_caller_chooses_only_what_its_rule_allows(
    channel: grpc.aio.Channel, name: str, choice: dict[str, Any], missing: tuple[str, str] | None
) -> None:
    call = Caller(channel, token=name)
    fields = {"job_type": "render", **choice}
    before = (await call.ListJobs(user_id="ada")).jobs
    alone = call.CreateJob(user_id="ada", **fields)
    batch = call.BatchCreateJobs(user_id="ada", requests=[{"job_type": "render"}, fields])
    if missing is None:
        await alone
        await batch
    else:
        for creation in alone, batch:
            refused = await refusal(creation)
            assert refused.code is StatusCode.PERMISSION_DENIED
            assert (refused.metadata["missing"], refused.metadata["value"]) == missing
        assert (await call.ListJobs(user_id="ada")).jobs == before


async def test_a_caller_gives_a_job_no_higher_priority_than_it_may_create_one_with(
    channel: grpc.aio.Channel,
) -> None:
    plain, ops = (Caller(channel, token=name) for name in ("plain", "ops"))
    job = await plain.job()
    own = {"job_id": job.id, "user_id": "ada"}
    refused = await refusal(plain.UpdateJob(**own, priority=6))
    assert refused.code is StatusCode.PERMISSION_DENIED
    assert (refused.metadata["missing"], refused.metadata["value"]) == ("max_priority", "6")
    assert (await ops.UpdateJob(**own, priority=6)).job.priority == 6
    assert (await plain.UpdateJob(**own, priority=5)).job.priority == 5


async def test_a_caller_repeats_only_jobs_that_it_may_create(channel: grpc.aio.Channel) -> None:
    web, ops, farm = (Caller(channel, token=name) for name in ("any", "ops", "farm"))
    job = await web.job(priority=9, fairness_key="eve", concurrency_key="x")
    await farm.TransitionJob(job_id=job.id, target_status="JOB_STATUS_PROCESSING", worker_id="w")
    await farm.MarkCompleted(job_id=job.id, attempt=1)
    plain = Caller(channel, token="plain")
    of_ada, completed = {"user_id": "ada"}, ["JOB_STATUS_COMPLETED"]
    for repetition in (
        plain.RerunJob(job_id=job.id, user_id="ada"),
        plain.RerunJobs(user_id="ada", filter={"statuses": completed}),
    ):
        assert (await refusal(repetition)).metadata["missing"] == "fairness"
    assert len((await plain.ListJobs(**of_ada)).jobs) == 1
    again = (await ops.RerunJob(job_id=job.id, user_id="ada")).job
    assert again.origin_job_id == job.id
