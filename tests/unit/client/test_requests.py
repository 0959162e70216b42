"""What the client sends, seen through grpcio-testing's fake channel."""

import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import grpc
import grpc_testing
import pytest
from google.protobuf import message_factory
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct

from jobledger import (
    Asset,
    Client,
    Job,
    JobError,
    JobPhase,
    JobStatus,
    JobView,
    MessageTooLarge,
    NewJob,
    RetryPolicy,
    UniquePolicy,
)
from jobledger.v1 import job_service_pb2 as jobs
from jobledger.v1 import queue_service_pb2 as queues
from jobledger.v1 import webhook_service_pb2 as webhooks
from jobledger.v1 import worker_service_pb2 as worker
from jobledger.v1.job_pb2 import (
    JOB_PHASE_HELD,
    JOB_PHASE_READY,
    JOB_STATUS_FAILED,
    JOB_STATUS_PARTIAL,
    JOB_STATUS_PROCESSING,
    JOB_VIEW_BASIC,
    JOB_VIEW_FULL,
)
from tests.support.fault_server import rich

SERVICES = [
    jobs.DESCRIPTOR.services_by_name["JobService"],
    worker.DESCRIPTOR.services_by_name["WorkerService"],
    queues.DESCRIPTOR.services_by_name["QueueService"],
    webhooks.DESCRIPTOR.services_by_name["WebhookService"],
]
METHODS = {method.name: method for service in SERVICES for method in service.methods}
STREAMS = {name for name, method in METHODS.items() if method.server_streaming}


class Wire:
    """Runs one call of a client and shows what it sent."""

    def __init__(self, **options):
        self.channel = grpc_testing.channel(SERVICES, grpc_testing.strict_real_time())
        self.client = Client(channel=self.channel, **{"user_id": "ada", **options})
        self.threads = ThreadPoolExecutor(1)

    def sent(self, method, call, answer=None):
        result = self.threads.submit(call, self.client)
        self.metadata, request, rpc = self.channel.take_unary_unary(METHODS[method])
        answer = answer or message_factory.GetMessageClass(METHODS[method].output_type)()
        rpc.send_initial_metadata(())
        rpc.terminate(answer, (), grpc.StatusCode.OK, "")
        result.result(10)
        return request


@pytest.fixture
def wire():
    return Wire()


def struct(**fields):
    message = Struct()
    message.update(fields)
    return message


ERROR = JobError("disk full", reason="NO_DISK")
ASSETS = [Asset("image/png", url="https://example.com/a.png", file_size=7)]
ERROR_MESSAGE = ERROR.to_proto()
ASSET_MESSAGES = [asset.to_new_proto() for asset in ASSETS]


def owned(**fields: Any) -> dict[str, Any]:
    return {"user_id": "ada", **fields}


# What a call sends: the call, its method and the fields of its request.
CASES: list[tuple[Callable[[Client], Any], str, dict[str, Any]]] = [
    (
        lambda c: c.create_job(
            "render",
            {"a": 1},
            labels={"k": "v"},
            request_id="r",
            retry_policy=RetryPolicy(
                max_attempts=3, initial_backoff=0.5, max_backoff=timedelta(minutes=5)
            ),
            schedule_time=datetime(1970, 1, 1, 1, tzinfo=UTC),
            queue_timeout=90,
            run_timeout=timedelta(hours=1, milliseconds=5),
            priority=0,
            unique_policy=UniquePolicy.RETURN_EXISTING,
        ),
        "CreateJob",
        owned(
            job_type="render",
            parameters=struct(a=1),
            labels={"k": "v"},
            request_id="r",
            retry_policy={
                "max_attempts": 3,
                "initial_backoff": {"nanos": 500_000_000},
                "max_backoff": {"seconds": 300},
            },
            schedule_time={"seconds": 3600},
            queue_timeout={"seconds": 90},
            run_timeout={"seconds": 3600, "nanos": 5_000_000},
            priority=0,
            unique_policy=jobs.UNIQUE_POLICY_RETURN_EXISTING,
        ),
    ),
    (
        lambda c: c.create_job("render", user_id="bob", request_id="r", delay=90),
        "CreateJob",
        {"user_id": "bob", "job_type": "render", "request_id": "r", "delay": {"seconds": 90}},
    ),
    (
        lambda c: c.create_job("render", request_id="r", schedule_time=timedelta(hours=1)),
        "CreateJob",
        owned(job_type="render", request_id="r", delay={"seconds": 3600}),
    ),
    (
        lambda c: c.create_jobs(
            [
                NewJob("render", {"a": 1}, labels={"k": "v"}, request_id="r", queue_timeout=60),
                NewJob("zip", request_id="s"),
            ]
        ),
        "BatchCreateJobs",
        owned(
            requests=[
                {
                    "job_type": "render",
                    "parameters": struct(a=1),
                    "labels": {"k": "v"},
                    "request_id": "r",
                    "queue_timeout": {"seconds": 60},
                },
                {"job_type": "zip", "request_id": "s"},
            ]
        ),
    ),
    (
        lambda c: c.cancel_job("j", "not needed"),
        "CancelJob",
        owned(job_id="j", reason="not needed"),
    ),
    (
        lambda c: c.claim_jobs(
            ["a", "b"],
            max_jobs=7,
            lease_duration=5.5,
            wait=timedelta(seconds=20),
            worker_id="w",
            holding=[Job(id="held", job_type="a", attempt=3)],
        ),
        "ClaimJobs",
        {
            "worker_id": "w",
            "job_types": ["a", "b"],
            "max_jobs": 7,
            "lease_duration": {"seconds": 5, "nanos": 500_000_000},
            "wait": {"seconds": 20},
            "holding": [{"job_id": "held", "attempt": 3}],
        },
    ),
    (
        lambda c: c.claim_jobs(["a"], worker_id="w", holding=()),
        "ClaimJobs",
        {
            "worker_id": "w",
            "job_types": ["a"],
            "max_jobs": 1,
            "lease_duration": {"seconds": 60},
            "wait": {},
            "holds_none": True,
        },
    ),
    (lambda c: c.release_job("j", 2), "ReleaseJob", {"job_id": "j", "attempt": 2}),
    (
        lambda c: c.release_job("j", 2, delay=timedelta(minutes=1)),
        "ReleaseJob",
        {"job_id": "j", "attempt": 2, "release": {"delay": {"seconds": 60}}},
    ),
    (lambda c: c.get_job("j"), "GetJob", owned(job_id="j", view=JOB_VIEW_FULL)),
    (
        lambda c: c.get_job("j", view=JobView.BASIC),
        "GetJob",
        owned(job_id="j", view=JOB_VIEW_BASIC),
    ),
    (
        lambda c: c.get_jobs(["k", "j", "k"]),
        "BatchGetJobs",
        owned(job_ids=["k", "j"], view=JOB_VIEW_BASIC),
    ),
    (
        lambda c: c.get_jobs(["j"], view=JobView.FULL),
        "BatchGetJobs",
        owned(job_ids=["j"], view=JOB_VIEW_FULL),
    ),
    (
        lambda c: list(c.list_jobs(all_users=True)),
        "ListJobs",
        {"filter": {}, "view": JOB_VIEW_BASIC},
    ),
    (
        lambda c: list(c.list_jobs(statuses=JobStatus.FAILED)),
        "ListJobs",
        owned(filter={"statuses": [JOB_STATUS_FAILED]}, view=JOB_VIEW_BASIC),
    ),
    (
        lambda c: list(
            c.list_jobs(
                statuses=[JobStatus.FAILED],
                job_types=["render"],
                labels={"k": "v"},
                created_after=datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
                created_before=datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC),
                error_reasons=["NO_DISK"],
                origin_job_id="i",
                held=False,
                cancelled=False,
                unique_key="order-1",
                request_id="r",
                concurrency_key="stripe",
                phases=[JobPhase.READY, "HELD"],  # type: ignore[list-item]
                worker_id="w",
                page_size=7,
                view=JobView.FULL,
            )
        ),
        "ListJobs",
        owned(
            filter={
                "statuses": [JOB_STATUS_FAILED],
                "job_types": ["render"],
                "labels": {"k": "v"},
                "created_after": {"seconds": 0},
                "created_before": {"seconds": 1, "nanos": 5000},
                "error_reasons": ["NO_DISK"],
                "origin_job_id": "i",
                "held": False,
                "cancelled": False,
                "unique_key": "order-1",
                "request_id": "r",
                "concurrency_key": "stripe",
                "phases": [JOB_PHASE_READY, JOB_PHASE_HELD],
                "worker_id": "w",
            },
            page_size=7,
            view=JOB_VIEW_FULL,
        ),
    ),
    (lambda c: c.rerun_job("j"), "RerunJob", owned(job_id="j")),
    (
        lambda c: c.rerun_jobs(error_reasons=["NO_DISK"], cancelled=True, jobs_per_second=0.5),
        "RerunJobs",
        owned(filter={"error_reasons": ["NO_DISK"], "cancelled": True}, jobs_per_second=0.5),
    ),
    (
        lambda c: c.rerun_jobs(all_jobs=True, all_users=True),
        "RerunJobs",
        {"filter": {}, "all": True},
    ),
    (
        lambda c: c.update_job("j", priority=0),
        "UpdateJob",
        owned(job_id="j", priority=0),
    ),
    (
        lambda c: c.update_job(
            "j", schedule_time=datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC), expected_version=2
        ),
        "UpdateJob",
        owned(job_id="j", schedule_time={"seconds": 1, "nanos": 5000}, expected_version=2),
    ),
    (
        lambda c: c.cancel_jobs("not needed", job_types=["render"]),
        "CancelJobs",
        owned(filter={"job_types": ["render"]}, reason="not needed"),
    ),
    (
        lambda c: c.delete_jobs(validate_only=True, user_id="bob", held=True),
        "DeleteJobs",
        {"user_id": "bob", "filter": {"held": True}, "validate_only": True, "max_jobs": 1000},
    ),
    (lambda c: c.delete_job("j"), "DeleteJob", owned(job_id="j")),
    (
        lambda c: list(c.list_assets("j", page_size=3)),
        "ListAssets",
        owned(job_id="j", page_size=3),
    ),
    (lambda c: list(c.list_transitions("j")), "ListTransitions", owned(job_id="j")),
    (
        lambda c: list(c.list_attempts("j", page_size=3)),
        "ListAttempts",
        owned(job_id="j", page_size=3),
    ),
    (
        lambda c: c.start_job("j", worker_id="w"),
        "TransitionJob",
        {"job_id": "j", "target_status": JOB_STATUS_PROCESSING, "worker_id": "w"},
    ),
    (
        lambda c: c.start_job("j", worker_id="w", lease_duration=60),
        "TransitionJob",
        {
            "job_id": "j",
            "target_status": JOB_STATUS_PROCESSING,
            "worker_id": "w",
            "lease_duration": {"seconds": 60},
        },
    ),
    (
        lambda c: c.transition_job(
            "j",
            JobStatus.PARTIAL,
            attempt=0,
            expected_version=4,
            progress=0,
            progress_message="",
            result={"b": None},
            error="disk full",
            reason="NO_DISK",
            assets=ASSETS,
            worker_id="",
        ),
        "TransitionJob",
        {
            "job_id": "j",
            "target_status": JOB_STATUS_PARTIAL,
            "attempt": 0,
            "expected_version": 4,
            "progress": {"progress": 0, "progress_message": ""},
            "finish": {"result": struct(b=None), "error": ERROR_MESSAGE, "assets": ASSET_MESSAGES},
        },
    ),
    (
        lambda c: c.transition_job(
            "j",
            JobStatus.FAILED,
            any_attempt=True,
            error=ERROR,
            retryable=True,
            retry_delay=1,
            worker_id="w",
        ),
        "TransitionJob",
        {
            "job_id": "j",
            "target_status": JOB_STATUS_FAILED,
            "any_attempt": True,
            "worker_id": "w",
            "finish": {"error": ERROR_MESSAGE, "retryable": True, "retry_delay": {"seconds": 1}},
        },
    ),
    (
        lambda c: c.update_progress("j", 0, progress_message="", attempt=1),
        "UpdateProgress",
        {"job_id": "j", "attempt": 1, "progress": {"progress": 0, "progress_message": ""}},
    ),
    (
        lambda c: c.update_progress("j", any_attempt=True),
        "UpdateProgress",
        {"job_id": "j", "any_attempt": True},
    ),
    (
        lambda c: c.update_progress("j", 40, checkpoint={"frame": 96}, attempt=1),
        "UpdateProgress",
        {"job_id": "j", "attempt": 1, "progress": {"progress": 40, "checkpoint": struct(frame=96)}},
    ),
    (
        lambda c: c.mark_completed("j", {}, assets=ASSETS, attempt=1),
        "MarkCompleted",
        {"job_id": "j", "attempt": 1, "finish": {"result": Struct(), "assets": ASSET_MESSAGES}},
    ),
    (
        lambda c: c.mark_completed("j", any_attempt=True),
        "MarkCompleted",
        {"job_id": "j", "any_attempt": True},
    ),
    (
        lambda c: c.mark_partial("j", error="disk full", reason="NO_DISK", any_attempt=True),
        "MarkPartial",
        {"job_id": "j", "any_attempt": True, "finish": {"error": ERROR_MESSAGE}},
    ),
    (
        lambda c: c.mark_failed("j", ERROR, any_attempt=True, result={"c": [True, "x"]}),
        "MarkFailed",
        {
            "job_id": "j",
            "any_attempt": True,
            "finish": {"error": ERROR_MESSAGE, "result": struct(c=[True, "x"])},
        },
    ),
    (
        lambda c: c.mark_failed("j", ERROR, attempt=2, retryable=True, retry_delay=60),
        "MarkFailed",
        {
            "job_id": "j",
            "attempt": 2,
            "finish": {"error": ERROR_MESSAGE, "retryable": True, "retry_delay": {"seconds": 60}},
        },
    ),
    (
        lambda c: c.create_asset("j", "x", storage_path="b", request_id="r", any_attempt=True),
        "CreateAsset",
        {
            "job_id": "j",
            "any_attempt": True,
            "asset": {"asset": {"asset_type": "x", "storage_path": "b"}, "request_id": "r"},
        },
    ),
    (
        lambda c: c.create_asset(
            "j", "x", url="https://a/b", file_size=7, attempt=3, request_id="r"
        ),
        "CreateAsset",
        {
            "job_id": "j",
            "attempt": 3,
            "asset": {
                "asset": {"asset_type": "x", "url": "https://a/b", "file_size": 7},
                "request_id": "r",
            },
        },
    ),
    (
        lambda c: list(
            c.admin.list_job_type_stats(
                ["render"], fairness_key="team-a", page_size=7, page_token="p"
            )
        ),
        "ListJobTypeStats",
        {"job_types": ["render"], "fairness_key": "team-a", "page_size": 7, "page_token": "p"},
    ),
    (lambda c: c.explain_job("j"), "ExplainJob", owned(job_id="j")),
    (lambda c: c.explain_job("j", all_users=True), "ExplainJob", {"job_id": "j"}),
    (
        lambda c: c.admin.pause_job_type("render", "deploy"),
        "PauseJobType",
        {"job_type": "render", "reason": "deploy"},
    ),
    (
        lambda c: c.admin.resume_job_type("render"),
        "ResumeJobType",
        {"job_type": "render"},
    ),
    (
        lambda c: c.admin.pause_concurrency_key("stripe", "outage"),
        "PauseConcurrencyKey",
        {"name": "stripe", "reason": "outage"},
    ),
    (
        lambda c: c.admin.resume_concurrency_key("stripe"),
        "ResumeConcurrencyKey",
        {"name": "stripe"},
    ),
    (
        lambda c: c.admin.set_concurrency_limit("stripe", 0),
        "SetConcurrencyLimit",
        {"name": "stripe", "max_running": 0},
    ),
    (
        lambda c: c.admin.remove_concurrency_limit("stripe"),
        "SetConcurrencyLimit",
        {"name": "stripe"},
    ),
    (
        lambda c: c.create_watch_token(labels={"k": "v"}, ttl=90),
        "CreateWatchToken",
        owned(labels={"k": "v"}, ttl={"seconds": 90}),
    ),
    (lambda c: c.admin.revoke_watch_tokens(), "RevokeWatchTokens", {}),
    (
        lambda c: c.create_webhook(
            "https://a/b",
            job_types=["render"],
            labels={"k": "v"},
            transitions=[JobStatus.PROCESSING, JobStatus.FAILED],
            request_id="r",
        ),
        "CreateWebhook",
        owned(
            url="https://a/b",
            job_types=["render"],
            labels={"k": "v"},
            transitions=[JOB_STATUS_PROCESSING, JOB_STATUS_FAILED],
            request_id="r",
        ),
    ),
    (
        lambda c: c.create_webhook("https://a/b", all_users=True, request_id="r"),
        "CreateWebhook",
        {"url": "https://a/b", "request_id": "r"},
    ),
    (lambda c: c.get_webhook("w"), "GetWebhook", owned(webhook_id="w")),
    (
        lambda c: c.update_webhook("w", url="https://a/b", labels={}, transitions=()),
        "UpdateWebhook",
        owned(
            webhook_id="w",
            update_mask=FieldMask(paths=["url", "labels", "transitions"]),
            url="https://a/b",
        ),
    ),
    (
        lambda c: c.rotate_webhook_secret("w", keep_previous=60, request_id="r"),
        "RotateSecret",
        owned(webhook_id="w", keep_previous={"seconds": 60}, request_id="r"),
    ),
    (
        lambda c: list(c.list_webhooks(page_size=7, page_token="p")),
        "ListWebhooks",
        owned(page_size=7, page_token="p"),
    ),
    (lambda c: c.delete_webhook("w"), "DeleteWebhook", owned(webhook_id="w")),
    (lambda c: c.enable_webhook("w", all_users=True), "EnableWebhook", {"webhook_id": "w"}),
    (
        lambda c: list(c.admin.list_concurrency_limits(page_size=7, page_token="p")),
        "ListConcurrencyLimits",
        {"page_size": 7, "page_token": "p"},
    ),
    (
        lambda c: c.admin.set_job_type_defaults(
            "render",
            retry_policy=RetryPolicy(max_attempts=1),
            queue_timeout=1,
            run_timeout=timedelta(minutes=2),
            stall_timeout=3,
            priority=0,
            retention=4,
        ),
        "SetJobTypeDefaults",
        {
            "job_type": "render",
            "defaults": {
                "retry_policy": RetryPolicy(max_attempts=1).to_proto(),
                "queue_timeout": {"seconds": 1},
                "run_timeout": {"seconds": 120},
                "stall_timeout": {"seconds": 3},
                "priority": 0,
                "retention": {"seconds": 4},
            },
        },
    ),
    (
        lambda c: c.admin.clear_job_type_defaults("render"),
        "SetJobTypeDefaults",
        {"job_type": "render"},
    ),
    (
        lambda c: list(c.admin.list_job_types(page_size=7, page_token="p")),
        "ListJobTypes",
        {"page_size": 7, "page_token": "p"},
    ),
    (
        lambda c: c.append_output("j", 3, "häm", stream="log", content_type="a/b", number=4),
        "AppendOutput",
        {
            "job_id": "j",
            "attempt": 3,
            "data": "häm".encode(),
            "stream": "log",
            "content_type": "a/b",
            "number": 4,
        },
    ),
    (
        lambda c: c.read_output("j", user_id="bob", stream="log", offset=7, max_bytes=9),
        "ReadOutput",
        {"job_id": "j", "user_id": "bob", "stream": "log", "offset": 7, "max_bytes": 9},
    ),
    (
        lambda c: c.read_output("j", last_bytes=0),
        "ReadOutput",
        {"job_id": "j", "user_id": "ada", "last_bytes": 0},
    ),
    (
        lambda c: c.create_group(
            "album", {"a": 1}, fail_fast=True, request_id="r", queue_timeout=90, group_id="g"
        ),
        "CreateJob",
        owned(
            job_type="album",
            parameters=struct(a=1),
            request_id="r",
            queue_timeout={"seconds": 90},
            group_id="g",
            group={"fail_fast": True},
        ),
    ),
    (
        lambda c: c.create_group("album", request_id="r"),
        "CreateJob",
        owned(job_type="album", request_id="r", group={}),
    ),
    (lambda c: c.seal_group("g"), "SealGroup", owned(job_id="g")),
]


@pytest.mark.parametrize(
    ("call", "method", "fields"), CASES, ids=[method for _, method, _ in CASES]
)
def test_each_call_sends_exactly_the_expected_request(wire, call, method, fields):
    request = message_factory.GetMessageClass(METHODS[method].input_type)(**fields)
    assert wire.sent(method, call) == request


def test_every_unary_rpc_of_the_contract_is_covered_above():
    assert {method for _, method, _ in CASES} == set(METHODS) - STREAMS


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({}, {"user_id": "ada", "view": JOB_VIEW_BASIC}),
        ({"all_users": True}, {"view": JOB_VIEW_BASIC}),
        (
            {
                "user_id": "bob",
                "job_types": ["render"],
                "labels": {"k": "v"},
                "job_ids": ["j"],
                "resume_token": "t",
                "view": JobView.FULL,
            },
            {
                "user_id": "bob",
                "job_types": ["render"],
                "labels": {"k": "v"},
                "job_ids": ["j"],
                "resume_token": "t",
                "view": JOB_VIEW_FULL,
            },
        ),
    ],
)
def test_a_watch_of_many_jobs_sends_exactly_the_expected_request(wire, options, fields):
    news = wire.client.watch_jobs(**options)
    first = wire.threads.submit(next, news)
    _, request, rpc = wire.channel.take_unary_stream(METHODS["WatchJobs"])
    assert request == jobs.WatchJobsRequest(**fields)
    rpc.send_initial_metadata(())
    rpc.send_response(jobs.WatchJobsResponse(synced=True))
    assert first.result(10).synced
    news.close()


@pytest.mark.parametrize(
    ("user_id", "options"),
    [
        (None, {}),
        ("", {}),
        ("ada", {"user_id": ""}),
        ("ada", {"user_id": "bob", "all_users": True}),
    ],
)
def test_jobs_of_all_users_are_requested_only_explicitly(user_id, options):
    client = Wire(user_id=user_id).client
    for ask in (client.watch_jobs, client.list_jobs, client.rerun_jobs, client.delete_jobs):
        with pytest.raises(ValueError, match="user_id"):
            ask(**options)
    with pytest.raises(ValueError, match="user_id"):
        client.explain_job("j", **options)


def test_all_jobs_are_not_watched_in_place_of_none(wire):
    with pytest.raises(ValueError, match="job_ids"):
        wire.client.watch_jobs(job_ids=[])


def test_defaults_are_not_removed_in_place_of_set(wire):
    with pytest.raises(ValueError, match=r"clear_job_type_defaults\(\)"):
        wire.client.admin.set_job_type_defaults("render")


def test_a_limit_is_not_removed_in_place_of_set(wire):
    with pytest.raises(TypeError, match="max_running"):
        wire.client.admin.set_concurrency_limit("stripe", None)


def test_a_view_that_does_not_exist_is_refused(wire):
    with pytest.raises(ValueError, match="is not a valid JobView"):
        wire.client.get_job("j", view="EVERYTHING")


def test_a_creating_call_carries_a_fresh_request_id(wire):
    new = [NewJob("render")] * 2
    create = [wire.sent("CreateJob", lambda c: c.create_job("render")) for _ in range(2)]
    link = wire.sent("CreateAsset", lambda c: c.create_asset("j", "x", url="https://a/b"))
    batch = wire.sent("BatchCreateJobs", lambda c: c.create_jobs([NewJob("render"), *new]))
    ids = {request.request_id for request in [*create, link.asset, *batch.requests]}
    assert len(ids) == 6
    assert len({uuid.UUID(value[:36]) for value in ids}) == 5


def test_a_new_job_has_one_request_id_in_all_calls(wire):
    new, own = NewJob("render"), NewJob("render", request_id="own")
    jobs = [new, new, own, own]
    sent = [wire.sent("BatchCreateJobs", lambda c: c.create_jobs(iter(jobs))) for _ in range(2)]
    ids = [new.request_id, f"{new.request_id}-1", "own", "own"]
    assert [[request.request_id for request in batch.requests] for batch in sent] == [ids, ids]


def test_a_client_starts_and_claims_jobs_under_one_worker_id(wire):
    start = wire.sent("TransitionJob", lambda c: c.start_job("j"))
    claim = wire.sent("ClaimJobs", lambda c: c.claim_jobs(["render"]))
    assert start.worker_id == claim.worker_id == wire.client.worker_id
    assert 10 < len(wire.client.worker_id) <= 128
    assert wire.client.worker_id != Wire().client.worker_id


FORK = """
import os
from jobledger import Client
client = Client("127.0.0.1:1")
# One write each: print() makes two, between which the other process may write.
os.fork()
os.write(1, f"{client.worker_id}\\n".encode())
"""


def test_a_forked_process_is_another_worker():
    run = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=True)
    ids = run.stdout.split()
    assert len(ids) == len(set(ids)) == 2


@pytest.mark.parametrize(("token", "sent"), [("s3cret", "Bearer s3cret"), (None, None)])
def test_a_token_is_sent_as_a_bearer_with_each_call(token, sent):
    wire = Wire(token=token)
    wire.sent("GetJob", lambda c: c.get_job("j"))
    assert dict(wire.metadata).get("authorization") == sent


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "\N{BULLET}"])
def test_a_token_that_no_header_can_carry_is_refused(token):
    with pytest.raises(ValueError, match="token"):
        Wire(token=token)


def test_pages_are_fetched_until_no_token_follows(wire):
    result = wire.threads.submit(lambda: [job.id for job in wire.client.list_jobs(page_size=2)])
    for token, ids, following in (("", "ab", "t1"), ("t1", "", "t2"), ("t2", "c", "")):
        _, request, rpc = wire.channel.take_unary_unary(METHODS["ListJobs"])
        assert (request.page_token, request.page_size) == (token, 2)
        page = jobs.ListJobsResponse(jobs=[{"id": i} for i in ids], next_page_token=following)
        rpc.send_initial_metadata(())
        rpc.terminate(page, (), grpc.StatusCode.OK, "")
    assert result.result(10) == ["a", "b", "c"]


def test_jobs_are_read_in_groups_which_are_halved_where_they_are_too_large(wire):
    ids = [str(number) for number in range(1600)]
    result = wire.threads.submit(wire.client.get_jobs, ids)
    too_large = rich(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED", limit="answer_bytes", scope="request"
    )
    sizes = []
    while sum(sizes) < len(ids):
        _, request, rpc = wire.channel.take_unary_unary(METHODS["BatchGetJobs"])
        rpc.send_initial_metadata(())
        if len(request.job_ids) > 500:
            rpc.terminate(None, too_large.trailing_metadata, too_large.code, too_large.details)
            continue
        sizes.append(len(request.job_ids))
        # One job does not exist.
        found = [{"id": job_id} for job_id in request.job_ids if job_id != "2"]
        rpc.terminate(jobs.BatchGetJobsResponse(jobs=found), (), grpc.StatusCode.OK, "")
    assert sizes == [500, 500, 500, 100]
    assert [*result.result(10)] == [job_id for job_id in ids if job_id != "2"]


def test_a_job_that_alone_is_too_large_is_an_error(wire):
    result = wire.threads.submit(wire.client.get_jobs, ["a", "b"])
    too_large = rich(grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED", scope="request")
    for size in (2, 1):
        _, request, rpc = wire.channel.take_unary_unary(METHODS["BatchGetJobs"])
        assert len(request.job_ids) == size
        rpc.send_initial_metadata(())
        rpc.terminate(None, too_large.trailing_metadata, too_large.code, too_large.details)
    with pytest.raises(MessageTooLarge):
        result.result(10)


def test_a_call_without_an_owner_is_refused_at_once():
    client = Wire(user_id=None).client
    for call in (
        client.create_job,
        client.get_job,
        client.rerun_job,
        client.cancel_jobs,
        client.watch,
        client.list_assets,
    ):
        with pytest.raises(ValueError, match="user_id"):
            call("x")


def test_a_time_without_a_zone_is_refused_at_once(wire):
    with pytest.raises(ValueError, match="created_after"):
        wire.client.list_jobs(created_after=datetime(2026, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize("error", [ERROR, None])
def test_a_reason_goes_only_with_a_message(wire, error):
    with pytest.raises(ValueError, match="reason"):
        wire.client.mark_partial("j", error=error, reason="NO_DISK")


def test_the_callers_own_channel_is_not_closed_with_the_client():
    class Channel:
        closed = False

        def unary_unary(self, *_, **__):
            return None

        unary_stream = stream_stream = unary_unary

        def close(self):
            self.closed = True

    channel = Channel()
    with Client(channel=channel):
        pass
    assert not channel.closed
