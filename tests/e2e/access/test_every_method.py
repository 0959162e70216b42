"""Every method of every service, called by every kind of caller."""

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.longrunning import operations_pb2
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc import StatusCode

from jobledger.v1 import (
    job_service_pb2,
    queue_service_pb2,
    webhook_service_pb2,
    worker_service_pb2,
)
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_server.rpc.keda import externalscaler_pb2
from jobledger_server.rpc.methods import METHODS
from tests.support.access_file import write_access_file

ALL_USERS = {"ListJobs", "RetryJobs", "CancelJobs", "DeleteJobs", "ExplainJob"}
READS = {
    *("GetJob", "BatchGetJobs", "CancelJob", "DeleteJob", "RetryJob", *ALL_USERS),
    *("ListAssets", "ListTransitions", "ListAttempts"),
}
WATCHES = {"WatchJob", "WatchJobs"}
OPERATIONS = {f"{verb}Operation" for verb in ("Get", "Cancel", "Delete", "Wait")}
WEBHOOKS = {f"{verb}Webhook" for verb in ("Create", "Delete", "Enable")} | {"ListWebhooks"}
CREATES = {"CreateJob", "BatchCreateJobs", "CreateWatchToken"}
OWNERS = {*CREATES, *READS, *WATCHES, *OPERATIONS, "ListOperations", *WEBHOOKS}
OPERATORS = OWNERS - CREATES
WORKERS = {
    *("ClaimJobs", "ReleaseJob", "TransitionJob", "UpdateProgress", "Work"),
    *("MarkCompleted", "MarkPartial", "MarkFailed", "CreateAsset"),
}
QUEUES = {
    *("GetStats", "PauseJobType", "ResumeJobType", "ListConcurrencyLimits"),
    *("SetConcurrencyLimit", "PauseConcurrencyKey", "ResumeConcurrencyKey", "RevokeWatchTokens"),
    *("ClaimWebhooks", "SaveWebhook"),
    *("IsActive", "StreamIsActive", "GetMetricSpec", "GetMetrics"),
}

CALLERS: dict[str, tuple[str, set[str], set[str]]] = {
    # What the file says; what the caller may call for ada; what it may call for bob.
    "owner": ('roles = ["owner"]\nusers = ["ada"]', OWNERS, set()),
    "everybody's owner": ('roles = ["owner"]\nusers = ["*"]', OWNERS, OWNERS),
    "worker": ('roles = ["worker"]\njob_types = ["render"]', WORKERS, WORKERS),
    "operator": ('roles = ["operator"]', OPERATORS | QUEUES, OPERATORS | QUEUES),
    "all": (
        'roles = ["owner", "worker", "operator"]\nusers = ["*"]\njob_types = ["*"]',
        OWNERS | WORKERS | QUEUES,
        OWNERS | WORKERS | QUEUES,
    ),
    "one method": ('methods = ["JobService/GetJob"]\nusers = ["ada"]', {"GetJob"}, set()),
    "counts": ('methods = ["QueueService/GetStats"]', {"GetStats"}, {"GetStats"}),
    "a role and a method": (
        """
            roles = ["owner"]
            methods = ["WorkerService/MarkFailed"]
            users = ["ada"]
            job_types = ["*"]
        """,
        OWNERS | {"MarkFailed"},
        {"MarkFailed"},
    ),
    "owner and operator": (
        'roles = ["owner", "operator"]\nusers = ["ada"]',
        OWNERS | QUEUES,
        OPERATORS | QUEUES,
    ),
}

# INTERNAL: a permission that cannot be judged.
REFUSALS = {StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED, StatusCode.INTERNAL}


def methods() -> Iterator[tuple[str, MethodDescriptor]]:
    """Yield the path and the descriptor of each method."""
    for module, names in (
        (job_service_pb2, ["JobService"]),
        (worker_service_pb2, ["WorkerService"]),
        (queue_service_pb2, ["QueueService"]),
        (webhook_service_pb2, ["WebhookService"]),
        (operations_pb2, ["Operations"]),
        (externalscaler_pb2, ["ExternalScaler"]),
    ):
        assert list(module.DESCRIPTOR.services_by_name) == names
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                yield f"/{service.full_name}/{method.name}", method


@pytest.mark.promise(number=59)
def test_every_method_has_a_rule_and_every_rule_a_method() -> None:
    assert set(METHODS) == {path for path, _ in methods()}
    assert {method.name for _, method in methods()} == OWNERS | WORKERS | QUEUES
    assert all(method.roles for method in METHODS.values())


@pytest.fixture
async def channel(start: Any, tmp_path: Path) -> Any:
    file = tmp_path / "access.toml"
    write_access_file(
        file,
        "".join(
            f'[[caller]]\nname = "{name}"\n'
            f'token_sha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n{rules}\n'
            for name, (rules, _, _) in CALLERS.items()
        ),
    )
    app = await start(access=file)
    with grpc.insecure_channel(app.address) as channel:
        yield channel


async def code_of(
    channel: grpc.Channel, path: str, method: MethodDescriptor, token: str | None, user: str
) -> StatusCode:
    """Call a method for a user, with a minimal request."""
    request = GetMessageClass(method.input_type)()
    if "user_id" in method.input_type.fields_by_name:
        request.user_id = user
    if "hello" in method.input_type.fields_by_name:
        request.hello.worker_id = "w"
        request.hello.job_types.append("render")
    if "job_types" in method.input_type.fields_by_name:
        request.job_types.append("render")
    metadata = [("x-jobledger-user", user)]
    if token is not None:
        metadata.append(("authorization", f"Bearer {token}"))
    return await asyncio.to_thread(_code, channel, path, request.SerializeToString(), metadata)


def _code(channel: grpc.Channel, path: str, request: bytes, metadata: Any) -> StatusCode:
    # Not by grpc.aio, whose client makes INTERNAL of a refusal that comes before its request has
    # left.
    call = channel.stream_stream(path)(iter([request]), metadata=metadata, timeout=30)
    try:
        next(call, None)
    except grpc.RpcError as error:
        code: StatusCode = error.code()
        return code
    call.cancel()
    return StatusCode.OK


@pytest.mark.promise(number=59)
async def test_each_caller_may_call_its_methods_and_no_others(channel: grpc.Channel) -> None:
    for path, method in methods():
        for name, (_, for_ada, for_bob) in CALLERS.items():
            for user, allowed in (("ada", for_ada), ("bob", for_bob)):
                code = await code_of(channel, path, method, name, user)
                expected = set() if method.name in allowed else {StatusCode.PERMISSION_DENIED}
                assert {code} & REFUSALS == expected, (method.name, name, user, code)


@pytest.mark.promise(number=59)
async def test_a_caller_without_identity_may_call_nothing(channel: grpc.Channel) -> None:
    for path, method in methods():
        for token in (None, "unknown", "owner "):
            code = await code_of(channel, path, method, token, "ada")
            assert code is StatusCode.UNAUTHENTICATED, (method.name, token)


@pytest.mark.promise(number=59)
async def test_a_watch_token_permits_four_methods_for_its_user(channel: grpc.Channel) -> None:
    make = job_service_pb2.CreateWatchTokenRequest(user_id="ada", labels={"team": "blue"})
    metadata = [("authorization", "Bearer owner")]
    answer = await asyncio.to_thread(
        JobServiceStub(channel).CreateWatchToken, make, metadata=metadata
    )
    for path, method in methods():
        for user in ("ada", "bob"):
            code = await code_of(channel, path, method, answer.token, user)
            allowed = user == "ada" and method.name in {"GetJob", "ListJobs", *WATCHES}
            expected = set() if allowed else {StatusCode.PERMISSION_DENIED}
            assert {code} & REFUSALS == expected, (method.name, user, code)


async def test_health_and_reflection_are_open_to_everybody(channel: grpc.Channel) -> None:
    for path in (
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ):
        code = await asyncio.to_thread(_code, channel, path, b"", ())
        assert (path, code) == (path, StatusCode.OK)


async def test_a_caller_limited_to_some_users_may_not_act_on_the_jobs_of_all(
    channel: grpc.Channel,
) -> None:
    for path, method in methods():
        if method.name not in ALL_USERS | {"WatchJobs"}:
            continue
        for name, expected in (
            ("owner", {StatusCode.PERMISSION_DENIED}),
            ("operator", set()),
            ("everybody's owner", set()),
        ):
            code = await code_of(channel, path, method, name, "")
            assert (method.name, name, {code} & REFUSALS) == (method.name, name, expected)
