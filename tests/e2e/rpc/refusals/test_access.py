"""Which callers may call which methods for which users."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from jobledger.v1 import job_service_pb2 as jobs
from jobledger.v1 import worker_service_pb2 as workers
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from tests.support.access_file import rule
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import decoded

CALLERS = rule("web", 'roles = ["owner"]\nusers = ["ada", "bob"]', "web-token") + rule(
    "worker", 'roles = ["worker"]\njob_types = ["*"]', "worker-token"
)

Ask = Callable[..., Any]


@pytest.fixture
async def ask(start_with: Any) -> Any:
    """Make a call with a token; return None or the refusal."""
    app = await start_with(CALLERS)
    async with grpc.aio.insecure_channel(app.address) as channel:

        async def ask(authorization: str | None, what: str, user_id: str = "ada") -> Any:
            metadata = [] if authorization is None else [("authorization", authorization)]
            if what == "create":
                request = jobs.CreateJobRequest(user_id=user_id, job_type="t")
                called = JobServiceStub(channel).CreateJob(request, metadata=metadata)
            elif what == "watch":
                request = jobs.WatchJobRequest(user_id=user_id, job_id="nowhere")
                called = JobServiceStub(channel).WatchJob(request, metadata=metadata).read()
            elif what == "list":
                listing = jobs.ListJobsRequest(user_id=user_id)
                called = JobServiceStub(channel).ListJobs(listing, metadata=metadata)
            elif what == "watch many":
                many = jobs.WatchJobsRequest(user_id=user_id)
                called = JobServiceStub(channel).WatchJobs(many, metadata=metadata).read()
            else:
                request = workers.UpdateProgressRequest(job_id="nowhere", attempt=1)
                called = WorkerServiceStub(channel).UpdateProgress(request, metadata=metadata)
            try:
                await called
            except grpc.aio.AioRpcError as error:
                return decoded(error)

        yield ask


@in_turn(
    ("authorization", "what", "user_id"),
    [
        (None, "create", "ada"),
        (None, "work", "ada"),
        (None, "watch many", ""),
        ("Bearer wrong", "create", "ada"),
        ("Bearer ", "create", "ada"),
        ("Bearer", "create", "ada"),
        ("Basic web-token", "create", "ada"),
        ("web-token", "create", "ada"),
    ],
)
async def test_a_caller_without_a_valid_token_is_unauthenticated(
    ask: Ask, authorization: str | None, what: str, user_id: str
) -> None:
    refused = await ask(authorization, what, user_id)
    assert (refused.code, refused.reason) == (StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert (refused.message, refused.metadata, refused.details) == (
        "this call needs a valid identity",
        {},
        {},
    )


@in_turn(
    ("authorization", "what", "user_id", "missing"),
    [
        ("Bearer web-token", "create", "eve", "users"),
        ("Bearer web-token", "watch", "eve", "users"),
        ("Bearer web-token", "watch many", "eve", "users"),
        ("Bearer web-token", "watch many", "", "users"),
        ("Bearer web-token", "list", "eve", "users"),
        ("Bearer web-token", "list", "", "users"),
        ("Bearer worker-token", "watch many", "ada", "methods"),
        ("Bearer web-token", "work", "ada", "methods"),
        ("Bearer worker-token", "create", "ada", "methods"),
    ],
)
async def test_a_denial_says_what_the_callers_rule_lacks(
    ask: Ask, authorization: str | None, what: str, user_id: str, missing: str
) -> None:
    refused = await ask(authorization, what, user_id)
    assert (refused.code, refused.reason) == (StatusCode.PERMISSION_DENIED, "ACCESS_DENIED")
    assert (refused.metadata["missing"], refused.details) == (missing, {})
    assert f"in `{missing}`" in refused.message
    assert refused.metadata["value"] in refused.message
