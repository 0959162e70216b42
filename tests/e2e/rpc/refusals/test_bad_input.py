"""Bad input gets a clear error and changes nothing."""

import math
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from jobledger_server.app import App
from jobledger_server.store import JobQuery
from jobledger_server.wire.tokens import token
from tests.support.rpc_caller import (
    COMPLETED,
    FAILED,
    PARTIAL,
    PROCESSING,
    Caller,
    Refusal,
    refusal,
)

CREATE = {"user_id": "ada", "job_type": "render"}
ASSET = {"asset_type": "image/png", "url": "https://e.example/a.png", "file_size": 1}


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


def struct(**values: Any) -> Struct:
    made = Struct()
    made.update(values)
    return made


NO_KIND = Struct(fields={"a": Value()})
NO_KIND_IN_LIST = Struct(fields={"a": Value(list_value=ListValue(values=[Value()]))})


async def assert_invalid(called: Any, field: str, words: str = "") -> Refusal:
    refused = await refusal(called)
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    (violation,) = refused.details["BadRequest"].field_violations
    assert violation.field == field
    assert words in violation.description
    return refused


@pytest.fixture
async def unchanged(app: App) -> Any:
    """Fail where anything was changed after `unchanged()` was called."""
    before = []

    async def note() -> None:
        before.append(await app.store.feed_head())

    yield note
    assert await app.store.feed_head() == before[0]


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": "x" * 129}, "user_id"),
        ({"user_id": "a\nb"}, "user_id"),
        ({"user_id": "a\0b"}, "user_id"),
        ({"user_id": "a\x9fb"}, "user_id"),
        ({"job_type": ""}, "job_type"),
        ({"job_type": "x" * 51}, "job_type"),
        ({"job_type": "-x"}, "job_type"),
        ({"job_type": "a b"}, "job_type"),
        ({"job_type": "a\n"}, "job_type"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"request_id": "\x7f"}, "request_id"),
        ({"labels": {str(i): "" for i in range(33)}}, "labels"),
        ({"labels": {"x" * 64: ""}}, "labels"),
        ({"labels": {'a"b': ""}}, "labels"),
        ({"labels": {"a": "x" * 256}}, "labels['a']"),
        ({"labels": {"a": "\0"}}, "labels['a']"),
        ({"parameters": struct(a=math.nan)}, "parameters"),
        ({"parameters": struct(a=[math.inf])}, "parameters"),
        ({"parameters": struct(a={"b": "\0"})}, "parameters"),
        ({"parameters": struct(**{"\0": 1})}, "parameters"),
        ({"parameters": struct(a="x" * 262_144)}, "parameters"),
        ({"parameters": NO_KIND}, "parameters"),
        ({"parameters": NO_KIND_IN_LIST}, "parameters"),
    ],
)
async def test_a_bad_job_is_refused(
    call: Caller, unchanged: Any, changed: dict[str, Any], field: str
) -> None:
    await unchanged()
    await assert_invalid(call.CreateJob(**{**CREATE, **changed}), field)


async def test_the_largest_job_allowed_is_taken_and_comes_back_whole(call: Caller) -> None:
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
    assert job.parameters == largest
    assert dict(job.labels) == fields["labels"]
    deep = await call.job(parameters=parameters)
    assert (await call.GetJob(job_id=deep.id, user_id="ada")).job.parameters == parameters


@pytest.mark.parametrize("depth", [33, 40, 100, 1000])
async def test_a_struct_nested_too_deeply_is_refused(app: App, unchanged: Any, depth: int) -> None:
    await unchanged()
    async with grpc.aio.insecure_channel(app.address) as channel:
        method = channel.unary_unary("/jobledger.v1.JobService/CreateJob")
        refused = await refusal(method(nested_bytes(depth)))
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_a_struct_of_32_levels_is_taken_and_can_be_watched(app: App, call: Caller) -> None:
    async with grpc.aio.insecure_channel(app.address) as channel:
        method = channel.unary_unary("/jobledger.v1.JobService/CreateJob")
        await method(nested_bytes(32))
    (job,) = (await call.ListJobs(user_id="ada")).jobs
    assert job.parameters == nested(32)
    stream = call.WatchJob(job_id=job.id, user_id="ada")
    assert (await stream.read()).job == job
    stream.cancel()


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff", b"\x0a\x02\xc3\x28", b"\x0a\xff\xff\xff\xff\x0f"]
)
async def test_bytes_that_are_no_message_are_the_callers_fault(
    app: App, unchanged: Any, data: bytes
) -> None:
    await unchanged()
    async with grpc.aio.insecure_channel(app.address) as channel:
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
    await unchanged()
    asset = {"asset_type": "t", "storage_path": "x" * 1024, "url": f"https://e/{'x' * 2000}"}
    refused = await refusal(call.MarkCompleted(job_id=job.id, assets=[asset] * 400))
    assert (refused.code, refused.reason) == (StatusCode.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED")
    assert refused.metadata == {
        "limit": "bytes in a message",
        "value": "1048576",
        "scope": "request",
    }
    assert "RetryInfo" not in refused.details


@pytest.mark.parametrize(
    ("method", "fields", "field"),
    [
        ("GetJob", {"job_id": "", "user_id": "ada"}, "job_id"),
        ("GetJob", {"job_id": "x" * 37, "user_id": "ada"}, "job_id"),
        ("GetJob", {"job_id": "a\0", "user_id": "ada"}, "job_id"),
        ("GetJob", {"job_id": "j", "user_id": ""}, "user_id"),
        ("DeleteJob", {"job_id": "j", "user_id": ""}, "user_id"),
        ("ListAssets", {"job_id": "j", "user_id": "ada", "page_size": -1}, "page_size"),
        ("ListTransitions", {"job_id": "j", "user_id": "ada", "page_size": 1001}, "page_size"),
        ("ListJobs", {"user_id": ""}, "user_id"),
        ("ListJobs", {"user_id": "ada", "page_size": 1001}, "page_size"),
        ("ListJobs", {"user_id": "ada", "statuses": [0]}, "statuses"),
        ("ListJobs", {"user_id": "ada", "statuses": [77]}, "statuses"),
        ("ListJobs", {"user_id": "ada", "job_types": ["a b"]}, "job_types[0]"),
        ("ListJobs", {"user_id": "ada", "job_types": ["a"] * 101}, "job_types"),
        ("ListJobs", {"user_id": "ada", "labels": {"'": ""}}, "labels"),
        (
            "ListJobs",
            {"user_id": "ada", "created_after": Timestamp(seconds=2**62)},
            "created_after",
        ),
        ("ListJobs", {"user_id": "ada", "created_before": Timestamp(nanos=-1)}, "created_before"),
        ("UpdateProgress", {"job_id": "j", "progress": 101}, "progress"),
        ("UpdateProgress", {"job_id": "j", "progress": -1}, "progress"),
        ("UpdateProgress", {"job_id": "j", "progress_message": "x" * 513}, "progress_message"),
        ("UpdateProgress", {"job_id": "j", "progress_message": "\0"}, "progress_message"),
        ("TransitionJob", {"job_id": "j"}, "target_status"),
        ("TransitionJob", {"job_id": "j", "target_status": 9}, "target_status"),
        ("TransitionJob", {"job_id": "j", "target_status": FAILED}, "error"),
        ("MarkFailed", {"job_id": "j"}, "error"),
        ("MarkFailed", {"job_id": "j", "error": {}}, "error.message"),
        ("MarkFailed", {"job_id": "j", "error": {"reason": "X"}}, "error.message"),
        (
            "MarkFailed",
            {"job_id": "j", "error": {"message": "no", "reason": "not upper"}},
            "error.reason",
        ),
        ("MarkFailed", {"job_id": "j", "error": {"message": "x" * 4097}}, "error.message"),
        (
            "MarkPartial",
            {"job_id": "j", "error": {"message": "no", "details": struct(a=math.nan)}},
            "error.details",
        ),
        (
            "TransitionJob",
            {"job_id": "j", "target_status": COMPLETED, "error": {"message": "no"}},
            "error",
        ),
        (
            "TransitionJob",
            {"job_id": "j", "target_status": PROCESSING, "result": struct(a=1)},
            "result",
        ),
        ("TransitionJob", {"job_id": "j", "target_status": 2, "assets": [ASSET]}, "assets"),
        ("MarkCompleted", {"job_id": "j", "result": struct(a=-math.inf)}, "result"),
        ("TransitionJob", {"job_id": "j", "target_status": 2, "worker_id": "\n"}, "worker_id"),
        ("MarkCompleted", {"job_id": "j", "assets": [ASSET] * 1001}, "assets"),
        ("MarkCompleted", {"job_id": "j", "assets": [ASSET, {}]}, "assets[1].url"),
    ],
)
async def test_a_bad_field_is_refused(
    call: Caller, unchanged: Any, method: str, fields: dict[str, Any], field: str
) -> None:
    await unchanged()
    refused = await refusal(getattr(call, method)(**fields))
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert field in [v.field for v in refused.details["BadRequest"].field_violations]


async def test_a_negative_version_cannot_be_resumed_after(call: Caller) -> None:
    stream = call.WatchJob(job_id="j", user_id="ada", after_version=-1)
    await assert_invalid(stream.read(), "after_version")


@pytest.mark.parametrize(
    ("changed", "field", "words"),
    [
        ({"asset_type": ""}, "asset_type", "required"),
        ({"asset_type": "x" * 51}, "asset_type", "51 characters"),
        ({"url": ""}, "url", "required"),
        ({"url": "ftp://e.example/a"}, "url", "scheme"),
        ({"url": "javascript:alert(1)"}, "url", "scheme"),
        ({"url": "/relative"}, "url", "absolute"),
        ({"url": "https://"}, "url", "no host"),
        ({"url": "https://user:secret@e.example/a"}, "url", "password"),
        ({"url": "https://user@e.example/a"}, "url", "user name"),
        ({"url": "https://e.example/a b"}, "url", "space"),
        ({"url": "https://e.example/a\nb"}, "url", "control character"),
        ({"url": "https://[::1/a"}, "url", "not a URL"),
        ({"url": "https://e.example:99999/"}, "url", "not a URL"),
        ({"url": "https://e.example/" + "x" * 2048}, "url", "2048"),
        ({"storage_path": "x" * 1025}, "storage_path", "1025"),
        ({"storage_path": "a\0"}, "storage_path", "control character"),
        ({"file_size": -1}, "file_size", "negative"),
        ({"request_id": "\0"}, "request_id", "control character"),
    ],
)
async def test_a_bad_asset_is_refused(
    call: Caller, unchanged: Any, changed: dict[str, Any], field: str, words: str
) -> None:
    job = await call.running()
    await unchanged()
    fields = {**ASSET, **changed}
    refused = await assert_invalid(call.CreateAsset(job_id=job.id, **fields), field, words)
    assert "secret" not in refused.message


async def test_an_operator_can_allow_other_schemes(start: Any) -> None:
    app = await start(url_schemes=frozenset({"s3"}))
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = Caller(channel)
        job = await call.running()
        asset = {"job_id": job.id, "asset_type": "t"}
        await call.CreateAsset(url="s3://bucket/key", **asset)
        await assert_invalid(call.CreateAsset(url="https://e.example", **asset), "url", "s3")


async def test_failed_without_a_message_changes_nothing(call: Caller, unchanged: Any) -> None:
    job = await call.running()
    await unchanged()
    for error in ({}, {"reason": "DISK_FULL"}):
        await assert_invalid(call.MarkFailed(job_id=job.id, error=error), "error.message")


async def test_a_second_end_with_other_content_changes_nothing(
    call: Caller, unchanged: Any
) -> None:
    job = await call.running()
    job = (await call.MarkPartial(job_id=job.id, result=struct(a=1))).job
    await unchanged()
    for called in (
        call.MarkPartial(job_id=job.id, result=struct(a=2)),
        call.MarkPartial(job_id=job.id),
        call.MarkPartial(job_id=job.id, result=struct(a=1), assets=[ASSET]),
        call.MarkCompleted(job_id=job.id, result=struct(a=1)),
        call.TransitionJob(job_id=job.id, target_status=PARTIAL, result=struct(a=True)),
    ):
        assert (await refusal(called)).reason == "JOB_TERMINAL"
    assert (await call.GetJob(job_id=job.id, user_id="ada")).job == job


@pytest.mark.parametrize("cursor", ["x", "-1", "", "9" * 30])
async def test_a_page_token_that_somebody_made_up_is_the_callers_fault(
    call: Caller, cursor: str
) -> None:
    job = await call.ended()
    made_up = token(("transitions", job.id), cursor)
    refused = await refusal(call.ListTransitions(job_id=job.id, user_id="ada", page_token=made_up))
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_TOKEN")
    query = JobQuery(user_id="ada").key()
    nul = await refusal(call.ListJobs(user_id="ada", page_token=token(query, f"{cursor}\0")))
    assert nul.reason == "INVALID_TOKEN"
