"""Which callers may call which methods for which users."""

from typing import Any

import grpc
import pytest
from grpc import StatusCode

from jobledger.v1 import job_service_pb2 as jobs
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.access_file import rule
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import Caller, refusal

CALLERS = rule("web", 'roles = ["owner"]\nusers = ["ada", "bob"]', "web-token") + rule(
    "worker", 'roles = ["worker"]\njob_types = ["*"]', "worker-token"
)


@pytest.fixture
async def channel(start_with: Any) -> Any:
    app = await start_with(CALLERS)
    async with grpc.aio.insecure_channel(app.address) as channel:
        yield channel


@in_turn(
    "authorization",
    [None, "Bearer wrong", "Bearer ", "Bearer", "Basic web-token", "web-token"],
)
async def test_a_caller_without_a_valid_token_is_unauthenticated(
    channel: grpc.aio.Channel, authorization: str | None
) -> None:
    metadata = [] if authorization is None else [("authorization", authorization)]
    request = jobs.CreateJobRequest(user_id="ada", job_type="t")
    refused = await refusal(JobServiceStub(channel).CreateJob(request, metadata=metadata))
    assert (refused.code, refused.reason) == (StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert (refused.message, refused.metadata, refused.details) == (
        "this call needs a valid identity",
        {},
        {},
    )


@in_turn(
    ("token", "method", "user_id", "missing"),
    [
        ("web-token", "CreateJob", "eve", "users"),
        ("web-token", "WatchJobs", "eve", "users"),
        ("web-token", "WatchJobs", "", "users"),
        ("web-token", "ListJobs", "", "users"),
        ("web-token", "ClaimJobs", None, "methods"),
        ("worker-token", "WatchJobs", "ada", "methods"),
        ("worker-token", "CreateJob", "ada", "methods"),
    ],
)
async def test_a_denial_says_what_the_callers_rule_lacks(
    channel: grpc.aio.Channel, token: str, method: str, user_id: str | None, missing: str
) -> None:
    fields = {} if user_id is None else {"user_id": user_id}
    called = getattr(Caller(channel, token=token), method)(**fields)
    refused = await refusal(called.read() if method == "WatchJobs" else called)
    assert (refused.code, refused.reason) == (StatusCode.PERMISSION_DENIED, "ACCESS_DENIED")
    assert (refused.metadata["missing"], refused.details) == (missing, {})
    assert f"in `{missing}`" in refused.message
    assert refused.metadata["value"] in refused.message
