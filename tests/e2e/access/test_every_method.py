"""Every method of every service, called over the wire."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc import StatusCode

from jobledger.v1 import job_service_pb2
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_server.rpc.methods import METHODS
from tests.support.callers import (
    ALL_USERS,
    CALLERS,
    OWNERS,
    QUEUES,
    WORKERS,
    methods,
    rules_of_callers,
)

# INTERNAL: a permission that cannot be judged.
REFUSALS = {StatusCode.UNAUTHENTICATED, StatusCode.PERMISSION_DENIED, StatusCode.INTERNAL}

Call = tuple[str, MethodDescriptor, str | None, str]
"""The path and the descriptor of a method, a token, and a user."""


def test_every_method_has_a_rule_and_every_rule_a_method() -> None:
    assert set(METHODS) == {path for path, _ in methods()}
    assert {method.name for _, method in methods()} == OWNERS | WORKERS | QUEUES
    assert all(method.roles for method in METHODS.values())


@pytest.fixture
async def channel(start_with: Any) -> Any:
    app = await start_with(rules_of_callers())
    with grpc.insecure_channel(app.address) as channel:
        yield channel


async def codes_of(channel: grpc.Channel, calls: Sequence[Call]) -> list[StatusCode]:
    """Make these calls, one after the other."""
    return await asyncio.to_thread(lambda: [code_of(channel, *call) for call in calls])


def code_of(
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
    streams = method.client_streaming or method.server_streaming
    return _code(channel, path, request.SerializeToString(), metadata, streams=streams)


def _code(
    channel: grpc.Channel, path: str, request: bytes, metadata: Any, *, streams: bool = True
) -> StatusCode:
    # Not by grpc.aio, whose client makes INTERNAL of a refusal that comes before its request has
    # left.
    try:
        if not streams:
            channel.unary_unary(path)(request, metadata=metadata, timeout=30)
            return StatusCode.OK
        call = channel.stream_stream(path)(iter([request]), metadata=metadata, timeout=30)
        next(call, None)
    except grpc.RpcError as error:
        code: StatusCode = error.code()
        return code
    call.cancel()
    return StatusCode.OK


def calls_of_callers() -> Iterator[tuple[Call, bool]]:
    """Yield calls, and whether each is allowed: those of each role, and of a method by its name.

    That each caller has the permissions that its rules say is tested with the access file.
    """
    for path, method in methods():
        for name, user, called in (
            ("owner", "ada", None),
            ("owner", "bob", OWNERS),
            ("worker", "ada", None),
            ("operator", "ada", None),
            ("all", "ada", {"ClaimJobs", "Work"}),  # which name types of jobs
            ("one method", "ada", {"GetJob", "ListJobs"}),
            ("counts", "ada", {"ListJobTypeStats"}),
            ("a role and a method", "ada", {"MarkFailed"}),
        ):
            if called is None or method.name in called:
                allowed = CALLERS[name][1 if user == "ada" else 2]
                yield (path, method, name, user), method.name in allowed


async def test_each_caller_may_call_its_methods_and_no_others(channel: grpc.Channel) -> None:
    calls, allowed = zip(*calls_of_callers(), strict=True)
    for call, may, code in zip(calls, allowed, await codes_of(channel, calls), strict=True):
        expected = set() if may else {StatusCode.PERMISSION_DENIED}
        assert {code} & REFUSALS == expected, (call[0], *call[2:], code)


async def test_a_caller_without_identity_may_call_nothing(channel: grpc.Channel) -> None:
    calls: list[Call] = []
    for path, method in methods():
        calls.append((path, method, None, "ada"))
        if method.name in {"GetJob", "CreateJob", "Work"}:
            calls += [(path, method, token, "ada") for token in ("unknown", "owner ")]
    for call, code in zip(calls, await codes_of(channel, calls), strict=True):
        assert code is StatusCode.UNAUTHENTICATED, (call[0], call[2])


@pytest.mark.parametrize("output", [False, True])
async def test_a_watch_token_permits_to_read_and_watch_for_its_user(
    channel: grpc.Channel, *, output: bool
) -> None:
    make = job_service_pb2.CreateWatchTokenRequest(
        user_id="ada", labels={"team": "blue"}, output=output
    )
    metadata = [("authorization", "Bearer owner")]
    answer = await asyncio.to_thread(
        JobServiceStub(channel).CreateWatchToken, make, metadata=metadata
    )
    permitted = {"GetJob", "ListJobs", "WatchJob", "WatchJobs"}
    if output:
        permitted |= {"WatchOutput", "ReadOutput"}
    calls: list[Call] = [
        (path, method, answer.token, user)
        for path, method in methods()
        for user in (("ada", "bob") if method.name in permitted else ("ada",))
    ]
    for (_, method, _, user), code in zip(calls, await codes_of(channel, calls), strict=True):
        allowed = user == "ada" and method.name in permitted
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
    expected = {
        "owner": {StatusCode.PERMISSION_DENIED},
        "operator": set(),
        "everybody's owner": set(),
    }
    calls: list[Call] = [
        (path, method, name, "")
        for path, method in methods()
        if method.name in ALL_USERS | {"WatchJobs"}
        for name in expected
    ]
    for (_, method, name, _), code in zip(calls, await codes_of(channel, calls), strict=True):
        assert (method.name, name, {code} & REFUSALS) == (method.name, name, expected[name])
