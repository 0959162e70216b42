"""The defaults of job types, through the wire: set, read, removed, and what jobs have of them."""

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from jobledger.v1 import job_pb2, job_service_pb2
from jobledger.v1 import queue_service_pb2 as pb
from jobledger_server.sql import queue_settings
from tests.support.access_file import rule
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import PROCESSING, Caller, policy, refusal

HOUR = Duration(seconds=3600)


def defaults(**fields: Any) -> pb.JobTypeDefaults:
    return pb.JobTypeDefaults(**fields)


def span(job: Any, field: str) -> float:
    """Return the seconds from a job's creation to a time."""
    return (getattr(job, field).ToMicroseconds() - job.create_time.ToMicroseconds()) / 1e6


async def test_a_job_has_the_defaults_of_its_type_where_its_creation_is_silent(
    call: Caller,
) -> None:
    given = defaults(
        retry_policy={"max_attempts": 7},
        queue_timeout=HOUR,
        run_timeout=Duration(seconds=60),
        stall_timeout=Duration(seconds=50),
        priority=0,
        retention=HOUR,
    )
    answer = await call.SetJobTypeDefaults(job_type="render", defaults=given)
    whole = defaults(
        retry_policy=job_pb2.RetryPolicy(
            max_attempts=7,
            initial_backoff=Duration(seconds=1),
            max_backoff=Duration(seconds=300),
            backoff_multiplier=2,
        ),
        queue_timeout=HOUR,
        run_timeout=Duration(seconds=60),
        stall_timeout=Duration(seconds=50),
        priority=0,
        retention=HOUR,
    )
    assert answer.job_type == pb.JobType(job_type="render", defaults=whole)
    many = [job_service_pb2.CreateJobRequest(job_type="render")]
    batch = await call.BatchCreateJobs(user_id="ada", requests=many)
    for job in (await call.job(), *batch.jobs):
        assert (job.priority, job.retry_policy) == (0, whole.retry_policy)
        assert (job.stall_timeout, span(job, "queue_expire_time")) == (Duration(seconds=50), 3600)
        assert job.retention == HOUR
    own = await call.job(priority=9, stall_timeout=HOUR, retry_policy=policy(2), queue_timeout=HOUR)
    assert (own.priority, own.stall_timeout, own.retry_policy.max_attempts) == (9, HOUR, 2)
    other = await call.job(job_type="export")
    assert (other.priority, other.retry_policy.max_attempts) == (5, 3)
    assert not other.HasField("retention")
    started = await call.running()
    assert span(started, "run_expire_time") == pytest.approx(60 + span(started, "start_time"))


@in_turn(
    ("fields", "field"),
    [
        ({}, "job_type"),
        ({"job_type": "a b"}, "job_type"),
        ({"job_type": "a", "defaults": {"priority": 10}}, "defaults.priority"),
        (
            {"job_type": "a", "defaults": {"retry_policy": {"max_attempts": 1001}}},
            "defaults.retry_policy.max_attempts",
        ),
        ({"job_type": "a", "defaults": {"queue_timeout": Duration()}}, "defaults.queue_timeout"),
        ({"job_type": "a", "defaults": {"run_timeout": Duration()}}, "defaults.run_timeout"),
        ({"job_type": "a", "defaults": {"stall_timeout": Duration()}}, "defaults.stall_timeout"),
        ({"job_type": "a", "defaults": {"retention": Duration()}}, "defaults.retention"),
    ],
)
async def test_a_wrong_default_is_named(call: Caller, fields: dict[str, Any], field: str) -> None:
    refused = await refusal(call.SetJobTypeDefaults(**fields))
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert [each.field for each in refused.details["BadRequest"].field_violations] == [field]


async def test_only_so_many_types_have_defaults(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_settings, "MAX_DEFAULTED_JOB_TYPES", 1)
    await call.SetJobTypeDefaults(job_type="a", defaults=defaults(priority=1))
    refused = await refusal(call.SetJobTypeDefaults(job_type="b", defaults=defaults(priority=1)))
    assert (refused.code, refused.reason) == (StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
    assert (refused.metadata["limit"], refused.metadata["value"]) == ("defaulted_job_types", "1")
    await call.SetJobTypeDefaults(job_type="a", defaults=defaults(priority=2))  # the same one
    await call.SetJobTypeDefaults(job_type="b")


async def test_a_default_priority_may_be_higher_than_a_caller_may_ask_for(start_with: Any) -> None:
    rules = {
        "web": 'roles = ["owner"]\nusers = ["ada"]\nmax_priority = 5',
        "farm": 'roles = ["worker"]\njob_types = ["*"]',
        "ops": 'roles = ["operator"]',
    }
    app = await start_with("".join(rule(*each) for each in rules.items()))
    async with grpc.aio.insecure_channel(app.address) as channel:
        web, farm, ops = (Caller(channel, token=name) for name in rules)
        await ops.SetJobTypeDefaults(job_type="render", defaults=defaults(priority=9))
        job = await web.job()
        await farm.TransitionJob(job_id=job.id, target_status=PROCESSING, worker_id="w")
        await farm.MarkCompleted(job_id=job.id, attempt=1)
        rerun = (await web.RerunJob(job_id=job.id, user_id="ada")).job
        assert (job.priority, rerun.priority) == (9, 9)
        asked = web.CreateJob(user_id="ada", job_type="render", priority=9)
        assert (await refusal(asked)).reason == "ACCESS_DENIED"
        for caller in (web, farm):
            refused = await refusal(caller.SetJobTypeDefaults(job_type="render"))
            assert refused.reason == "ACCESS_DENIED"
