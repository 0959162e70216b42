"""Bad input gets a clear error and changes nothing."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from grpc import StatusCode

from jobledger_server.app import App
from jobledger_server.rpc.tokens import token
from jobledger_server.store import JobQuery
from tests.support.bad_requests import BAD_REQUESTS, struct
from tests.support.databases import both_databases
from tests.support.in_turn import in_turn
from tests.support.rpc_caller import Caller, Refusal, calling, refusal


def nested(depth: int) -> Struct:
    """A Struct that is `depth` levels deep."""
    inner = Struct()
    for _ in range(depth - 1):
        outer = Struct()
        outer.fields["a"].struct_value.CopyFrom(inner)
        inner = outer
    return inner


def nested_bytes(depth: int) -> bytes:
    """The bytes of a CreateJobRequest with parameters `depth` levels deep."""

    def field(number: int, data: bytes) -> bytes:
        length, size = len(data), b""
        while length > 127:
            size += bytes([length & 127 | 128])
            length >>= 7
        return bytes([number << 3 | 2]) + size + bytes([length]) + data

    struct = b""
    for _ in range(depth - 1):
        struct = field(1, field(1, b"a") + field(2, field(5, struct)))
    return field(1, b"ada") + field(2, b"render") + field(3, struct)


async def assert_invalid(called: Any, field: str, words: str = "") -> Refusal:
    refused = await refusal(called)
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    (violation,) = refused.details["BadRequest"].field_violations
    assert violation.field == field
    assert words in violation.description
    return refused


@pytest.fixture
def unchanged(app: App) -> Callable[[], AbstractAsyncContextManager[None]]:
    """Return a context manager that fails if anything is changed within its block."""

    @asynccontextmanager
    async def unchanged() -> AsyncIterator[None]:
        before = await app.store.feed_head()
        yield
        assert await app.store.feed_head() == before

    return unchanged


@in_turn(
    ("method", "fields", "field", "words"),
    # The last one of each method: `test_requests.py` has them all.
    {method: (method, *rest) for method, *rest in BAD_REQUESTS}.values(),
)
async def test_a_bad_field_is_refused(
    call: Caller, unchanged: Any, method: str, fields: dict[str, Any], field: str, words: str
) -> None:
    async with unchanged():
        called = getattr(call, method)(**fields)
        if method.startswith("Watch"):
            called = called.read()
        refused = await assert_invalid(called, field, words)
    assert "secret" not in refused.message


@both_databases
async def test_the_largest_job_allowed_is_accepted_and_read_back_unchanged(call: Caller) -> None:
    overhead = struct(a="").ByteSize()
    parameters = nested(31)
    largest = struct(a="x" * (262_144 - overhead - 8))
    assert 262_000 < largest.ByteSize() <= 262_144
    fields = {
        "user_id": "ü" * 128,
        "job_type": "a" * 50,
        "labels": {f"{i:02}/{'k' * 60}": "v" * 255 for i in range(32)},
        "request_id": "r" * 128,
    }
    job = (await call.CreateJob(parameters=largest, **fields)).job
    assert dict(job.labels) == fields["labels"]
    read = (await call.GetJob(job_id=job.id, user_id=job.user_id)).job
    assert read.parameters == largest
    read.ClearField("parameters")
    assert read == job
    deep = await call.job(parameters=parameters)
    assert (await call.GetJob(job_id=deep.id, user_id="ada")).job.parameters == parameters


@in_turn("depth", [33, 1000])
async def test_a_struct_nested_too_deeply_is_refused(app: App, unchanged: Any, depth: int) -> None:
    async with unchanged():
        async with grpc.aio.insecure_channel(app.address) as channel:
            method = channel.unary_unary("/jobledger.v1.JobService/CreateJob")
            refused = await refusal(method(nested_bytes(depth)))
        assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_a_struct_of_32_levels_is_accepted_and_can_be_watched(app: App, call: Caller) -> None:
    async with grpc.aio.insecure_channel(app.address) as channel:
        method = channel.unary_unary("/jobledger.v1.JobService/CreateJob")
        await method(nested_bytes(32))
    (job,) = (await call.ListJobs(user_id="ada", view="JOB_VIEW_FULL")).jobs
    assert job.parameters == nested(32)
    stream = call.WatchJob(job_id=job.id, user_id="ada")
    assert (await stream.read()).job == job
    stream.cancel()


@in_turn("data", [b"\xff\xff\xff", b"\x0a\x02\xc3\x28", b"\x0a\xff\xff\xff\xff\x0f"])
async def test_bytes_that_are_no_message_are_invalid_argument(
    app: App, unchanged: Any, data: bytes
) -> None:
    async with unchanged(), grpc.aio.insecure_channel(app.address) as channel:
        for name in ("JobService/CreateJob", "WorkerService/MarkFailed"):
            refused = await refusal(channel.unary_unary(f"/jobledger.v1.{name}")(data))
            assert (refused.code, refused.reason) == (
                StatusCode.INVALID_ARGUMENT,
                "INVALID_FIELD",
            )
        stream = channel.unary_stream("/jobledger.v1.JobService/WatchJob")(data)
        refused = await refusal(stream.read())
        assert refused.code is StatusCode.INVALID_ARGUMENT


async def test_a_message_too_big_in_all_its_fields_is_refused(call: Caller, unchanged: Any) -> None:
    job = await call.running()
    async with unchanged():
        asset = {"asset_type": "t", "storage_path": "x" * 1024, "url": f"https://e/{'x' * 2000}"}
        refused = await refusal(
            call.MarkCompleted(job_id=job.id, attempt=1, finish={"assets": [asset] * 400})
        )
        assert (refused.code, refused.reason) == (StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
        assert refused.metadata == {
            "limit": "message_bytes",
            "value": "1048576",
            "scope": "request",
        }
        assert "RetryInfo" not in refused.details


async def test_an_operator_can_allow_other_url_schemes(start: Any) -> None:
    app = await start(url_schemes=frozenset({"s3"}))
    async with calling(app.address) as call:
        job = await call.running()
        held = {"job_id": job.id, "attempt": 1}
        await call.CreateAsset(
            **held, asset={"asset": {"asset_type": "t", "url": "s3://bucket/key"}}
        )
        await assert_invalid(
            call.CreateAsset(
                **held, asset={"asset": {"asset_type": "t", "url": "https://e.example"}}
            ),
            "asset.asset.url",
            "s3",
        )


@in_turn("cursor", ["x", "-1", "", "9" * 30])
async def test_an_invented_page_token_is_invalid_argument(call: Caller, cursor: str) -> None:
    job = await call.ended()
    made_up = token(("transitions", job.id), cursor)
    refused = await refusal(call.ListTransitions(job_id=job.id, user_id="ada", page_token=made_up))
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_TOKEN")
    query = JobQuery(user_id="ada").key()
    nul = await refusal(call.ListJobs(user_id="ada", page_token=token(query, f"{cursor}\0")))
    assert nul.reason == "INVALID_TOKEN"


@both_databases
async def test_nothing_follows_a_page_token_with_a_number_that_no_attempt_has(call: Caller) -> None:
    job = await call.running()
    made_up = token(("attempts", job.id), str(2**31))
    answer = await call.ListAttempts(job_id=job.id, user_id="ada", page_token=made_up)
    assert (list(answer.attempts), answer.next_page_token) == ([], "")


@in_turn("cursor", ["x", " ", "00", "ff", "61" * 201])
async def test_an_invented_page_token_of_limits_is_invalid_argument(
    call: Caller, cursor: str
) -> None:
    made_up = token("limits", cursor)
    refused = await refusal(call.ListConcurrencyLimits(page_token=made_up))
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_TOKEN")
