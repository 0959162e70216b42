"""Watch tokens: they read one job, or those with some labels, and nothing else, for a while."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from jobledger.v1.job_service_pb2 import ListJobsRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_server.app import App
from tests.support.access_file import rule, write_access_file
from tests.support.databases import both_databases, several_servers
from tests.support.http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GET_JOB,
    HEADERS,
    Connection,
    frame,
    literal,
    message,
    request_headers,
)
from tests.support.rpc_caller import BASIC, FULL, Caller, refusal

BLUE = {"team": "blue"}


@pytest.fixture
def anybody(channel: grpc.aio.Channel) -> Caller:
    """Return a caller on a server without an access file, who may do everything."""
    return Caller(channel)


async def token_for(caller: Caller, seconds: int = 60, **fields: Any) -> str:
    """Make a watch token of ada's."""
    made = await caller.CreateWatchToken(user_id="ada", ttl=Duration(seconds=seconds), **fields)
    return str(made.token)


async def denied(call: Any) -> tuple[StatusCode, str]:
    """Return how a call is refused."""
    found = await refusal(call)
    return found.code, found.reason


DENIED = StatusCode.PERMISSION_DENIED, "ACCESS_DENIED"
UNKNOWN = StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"


async def test_a_token_for_a_job_reads_and_watches_it_without_naming_it_and_no_other(
    channel: grpc.aio.Channel, anybody: Caller
) -> None:
    job = await anybody.job(parameters={"secret": 1})
    other = await anybody.job()
    holder = Caller(channel, token=await token_for(anybody, job_id=job.id))

    assert (await holder.GetJob()).job.id == job.id
    assert (await holder.WatchJob().read()).job.id == job.id
    assert [each.job.id for each in (await holder.WatchJobs().read()).changes.changes] == [job.id]

    assert await denied(holder.GetJob(job_id=other.id)) == DENIED
    assert await denied(holder.GetJob(user_id="bob")) == DENIED
    assert await denied(holder.WatchJob(job_id=other.id).read()) == DENIED
    assert await denied(holder.WatchJobs(job_ids=[job.id, other.id]).read()) == DENIED
    assert await denied(holder.WatchJobs(user_id="bob").read()) == DENIED
    assert await denied(holder.ListJobs()) == DENIED
    assert await denied(holder.CancelJob(user_id="ada", job_id=job.id)) == DENIED
    assert await denied(holder.CreateWatchToken(user_id="ada", job_id=job.id)) == DENIED


async def test_a_token_reads_output_only_if_it_was_made_with_it(
    channel: grpc.aio.Channel, anybody: Caller
) -> None:
    job, other = await anybody.running(labels=BLUE), await anybody.running()
    for each in (job, other):
        await anybody.AppendOutput(job_id=each.id, attempt=1, data=b"words")
    without = Caller(channel, token=await token_for(anybody, job_id=job.id))
    assert await denied(without.ReadOutput()) == DENIED
    assert await denied(without.WatchOutput().read()) == DENIED
    for of in ({"job_id": job.id}, {"labels": BLUE}):
        holder = Caller(channel, token=await token_for(anybody, output=True, **of))
        assert (await holder.ReadOutput(job_id=job.id)).data == b"words"
        assert (await holder.WatchOutput(job_id=job.id).read()).data == b"words"
        refused = await denied(holder.ReadOutput(job_id=other.id))
        missing = StatusCode.NOT_FOUND, "JOB_NOT_FOUND"
        assert refused == (DENIED if "job_id" in of else missing)


async def test_a_token_for_labels_reads_and_watches_the_jobs_that_have_them_and_no_other(
    channel: grpc.aio.Channel, anybody: Caller
) -> None:
    labels = {**BLUE, "size": "small"}
    job = await anybody.job(labels=labels)
    red, others = await anybody.job(labels={"team": "red"}), await anybody.job("bob", labels=BLUE)
    holder = Caller(channel, token=await token_for(anybody, labels=BLUE))

    assert [each.id for each in (await holder.ListJobs()).jobs] == [job.id]
    assert [each.job.id for each in (await holder.WatchJobs().read()).changes.changes] == [job.id]
    assert (await holder.GetJob(job_id=job.id)).job.labels == labels
    assert (await holder.WatchJob(job_id=job.id).read()).job.id == job.id
    assert len((await holder.ListJobs(filter={"labels": {"size": "large"}})).jobs) == 0

    assert await denied(holder.ListJobs(filter={"labels": {"team": "red"}})) == DENIED
    assert await denied(holder.WatchJobs(labels={"team": "red"}).read()) == DENIED
    for job_id in (red.id, others.id):
        found = StatusCode.NOT_FOUND, "JOB_NOT_FOUND"
        assert await denied(holder.GetJob(job_id=job_id)) == found
        assert await denied(holder.WatchJob(job_id=job_id).read()) == found


async def test_the_holder_of_a_token_sees_no_payloads_whatever_view_it_asks_for(
    channel: grpc.aio.Channel, anybody: Caller
) -> None:
    job = await anybody.ended(parameters={"secret": 1}, labels=BLUE)
    for token in (await token_for(anybody, job_id=job.id), await token_for(anybody, labels=BLUE)):
        holder = Caller(channel, token=token)
        seen = [
            (await holder.GetJob(job_id=job.id, view=FULL)).job,
            (await holder.WatchJob(job_id=job.id, view=FULL).read()).job,
        ]
        assert not any(each.HasField("parameters") for each in seen)


async def test_the_holder_of_a_token_neither_sees_a_request_id_nor_finds_a_job_by_it(
    channel: grpc.aio.Channel, anybody: Caller
) -> None:
    """Nor does its owner miss it, who watches the same job and may be sent the same message."""
    job = await anybody.job(labels=BLUE, request_id="order-1")
    token = await token_for(anybody, labels=BLUE)

    async def seen(caller: Caller) -> set[str]:
        of_ada: dict[str, Any] = {"user_id": "ada"}
        one = {**of_ada, "job_id": job.id}
        return {
            each.request_id
            for each in (
                (await caller.GetJob(**one)).job,
                *(await caller.ListJobs(**of_ada)).jobs,
                (await caller.WatchJob(**one, view=BASIC).read()).job,
                *(each.job for each in (await caller.WatchJobs(**of_ada).read()).changes.changes),
            )
        }

    for _ in range(2):  # in either order
        assert await seen(Caller(channel, token=token)) == {""}
        assert await seen(anybody) == {"order-1"}
    holder = Caller(channel, token=token)
    assert await denied(holder.ListJobs(filter={"request_id": "order-1"})) == DENIED


async def test_the_holder_of_a_token_sees_no_assets_of_a_deleted_job(
    channel: grpc.aio.Channel, anybody: Caller
) -> None:
    """Nor does its owner miss them, who watches the same jobs and may be sent the same message."""
    before = (await anybody.WatchJobs(user_id="ada", labels=BLUE).read()).resume_token
    job = await anybody.running(labels=BLUE)
    url = "https://e.example/a.png?signature=secret"
    await anybody.CreateAsset(
        job_id=job.id,
        attempt=1,
        asset={"asset": {"asset_type": "image/png", "url": url, "name": "a"}},
    )
    await anybody.MarkCompleted(job_id=job.id, attempt=1)
    await anybody.DeleteJob(job_id=job.id, user_id="ada")
    holder = Caller(channel, token=await token_for(anybody, labels=BLUE))

    async def seen(caller: Caller, **fields: Any) -> list[str]:
        watch = caller.WatchJobs(labels=BLUE, resume_token=before, **fields)
        changes = []
        while not any(change.deleted for change in changes):
            changes += (await watch.read()).changes.changes
        return [asset.url for change in changes for asset in change.deleted_assets]

    for _ in range(2):  # in either order
        assert await seen(holder) == []
        assert await seen(anybody, user_id="ada") == [url]


async def test_a_token_that_is_not_ascii_is_refused_and_no_error_of_the_server(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    with Connection(app.address) as connection:
        for stream, end in ((1, "é".encode()), (3, b"\xff")):
            token = literal(b"authorization", b"Bearer jlw_e30.c2ln" + end)
            call = request_headers(GET_JOB, token)
            connection.send(
                frame(HEADERS, END_HEADERS, stream, call),
                frame(DATA, END_STREAM, stream, message(b"")),
            )
        async with asyncio.timeout(30):
            while connection.ended != {1, 3}:
                await asyncio.sleep(0.02)
    assert [each.message for each in caplog.records if each.name == "jobledger.rpc"] == []


async def test_a_token_that_was_changed_or_made_up_is_refused(
    channel: grpc.aio.Channel, anybody: Caller
) -> None:
    token = await token_for(anybody, labels=BLUE)
    signed, _, signature = token.removeprefix("jlw_").partition(".")
    content = json.loads(base64.urlsafe_b64decode(signed))
    content[1] = "bob"
    forged = base64.urlsafe_b64encode(json.dumps(content).encode()).decode()
    for bad in (
        f"jlw_{forged}.{signature}",
        f"jlw_{signed}.{signature[:-5]}",
        f"jlw_{signed}",
        "jlw_",
        "jlw_.",
        f"{token}=",
    ):
        # On a server without an access file, too: such a call is not anybody's.
        assert await denied(Caller(channel, token=bad).ListJobs()) == UNKNOWN


async def test_a_call_with_a_token_and_another_authorization_is_refused(
    channel: grpc.aio.Channel, anybody: Caller
) -> None:
    token = await token_for(anybody, labels=BLUE)
    for others in (["Bearer x", f"Bearer {token}"], [f"Bearer {token}", "Basic x"]):
        stub = JobServiceStub(channel)
        call = stub.ListJobs(
            ListJobsRequest(), metadata=[("authorization", each) for each in others]
        )
        assert await denied(call) == UNKNOWN


async def test_an_expired_token_is_refused_and_ends_the_streams_that_it_opened(
    channel: grpc.aio.Channel, anybody: Caller
) -> None:
    job = await anybody.job()
    holder = Caller(channel, token=await token_for(anybody, seconds=1, job_id=job.id))
    stream = holder.WatchJob()
    await stream.read()
    assert (await refusal(_to_the_end(stream))).code is StatusCode.UNAVAILABLE
    assert await denied(holder.GetJob()) == UNKNOWN


@both_databases
async def test_revoking_makes_all_tokens_invalid_and_ends_their_streams(
    channel: grpc.aio.Channel, anybody: Caller
) -> None:
    job = await anybody.job()
    holder = Caller(channel, token=await token_for(anybody, job_id=job.id))
    own, held = anybody.WatchJob(user_id="ada", job_id=job.id), holder.WatchJob()
    await own.read()
    await held.read()
    await anybody.RevokeWatchTokens()
    assert await denied(holder.GetJob()) == UNKNOWN
    assert (await refusal(_to_the_end(held))).code is StatusCode.UNAVAILABLE
    again = Caller(channel, token=await token_for(anybody, job_id=job.id))
    assert (await again.GetJob()).job.id == job.id
    await anybody.CancelJob(user_id="ada", job_id=job.id)
    await _to_the_end(own)  # it was opened without a token


@several_servers
async def test_a_token_is_good_at_every_server_until_it_is_revoked_at_any(
    start: Any, anybody: Caller
) -> None:
    job = await anybody.job()
    token = await token_for(anybody, job_id=job.id)
    other = await start()
    async with grpc.aio.insecure_channel(other.address) as elsewhere:
        holder = Caller(elsewhere, token=token)
        stream = holder.WatchJob()
        await stream.read()
        await anybody.RevokeWatchTokens()
        assert (await refusal(_to_the_end(stream))).code is StatusCode.UNAVAILABLE
        assert await denied(holder.GetJob()) == UNKNOWN


async def test_a_token_needs_a_job_that_the_owner_has_or_labels_that_fit(anybody: Caller) -> None:
    job = await anybody.job("bob")
    made = [
        (await refusal(token_for(anybody, **fields))).reason
        for fields in (
            {"job_id": job.id},
            {},
            {"job_id": job.id, "labels": BLUE},
            {"labels": {f"{i}": "x" * 255 for i in range(8)}},
            {"labels": BLUE, "seconds": 24 * 3600 + 1},
            {"labels": BLUE, "seconds": 0},
        )
    ]
    assert made == ["JOB_NOT_FOUND", *["INVALID_FIELD"] * 5]


async def test_a_change_of_the_access_file_ends_no_stream_of_a_token(
    start: Any, tmp_path: Path
) -> None:
    file = tmp_path / "access.toml"
    roles = 'roles = ["owner"]\nusers = ["ada"]'
    write_access_file(file, rule("a", roles, "ada"))
    app = await start(access=file)
    async with grpc.aio.insecure_channel(app.address) as channel:
        ada = Caller(channel, token="ada")
        job = await ada.job()
        holder = Caller(channel, token=await token_for(ada, job_id=job.id))
        own, held = ada.WatchJob(user_id="ada", job_id=job.id), holder.WatchJob()
        await own.read()
        await held.read()
        write_access_file(file, rule("a", roles, "another"))
        app.reload()
        assert (await refusal(_to_the_end(own))).code is StatusCode.UNAVAILABLE
        assert (await holder.GetJob()).job.id == job.id
        assert not held.done()


async def _to_the_end(stream: Any) -> None:
    async with asyncio.timeout(30):
        while await stream.read() is not grpc.aio.EOF:
            pass
