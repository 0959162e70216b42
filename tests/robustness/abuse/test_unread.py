"""A client that reads no answer: what the server keeps for it is bounded."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct, Value

from jobledger_server.app import App
from jobledger_server.domain.limits import MAX_FULL_PAGE_BYTES
from tests.robustness.abuse.attacker import attack
from tests.robustness.abuse.good_client import good_client, served_alone
from tests.robustness.abuse.http2_attacks import unread_answers
from tests.support.access_file import rule, write_access_file
from tests.support.databases import sqlite_only
from tests.support.rpc_caller import BASIC, FULL, SMALL_WINDOW, Caller, refusal, watching
from tests.support.server_process import MIB, ServerProcess


@pytest.mark.slow
@sqlite_only
async def test_unread_answers_do_not_delay_other_clients(proxied_server: ServerProcess) -> None:
    alone = await served_alone(proxied_server.target)
    async with grpc.aio.insecure_channel(proxied_server.target) as channel:
        blob = Struct(fields={"blob": Value(string_value="x" * 250_000)})
        job = await Caller(channel).job(user_id="eve", parameters=blob)
    before = proxied_server.peak_memory
    options = {"job_id": job.id, "user_id": "eve", "connections": 4, "calls": 1000}
    async with attack(unread_answers, proxied_server.target, **options) as attacker:
        await attacker.begun()
        # After the burst: what is measured is what the answers cost that wait to be read.
        assert (await served_alone(proxied_server.target, 0)).failed == []
        async with good_client(proxied_server.target) as good:
            await asyncio.sleep(3)
        assert await attacker.report() == {"calls": 4000}
    good.assert_served(alone)
    # A gigabyte was asked for. Each connection gets a quarter of 256 MiB, and gRPC copies it.
    assert proxied_server.peak_memory - before < 700 * MIB


BLOB = Struct(fields={"blob": Value(string_value="x" * 250_000)})

Start = Callable[..., Awaitable[App]]


@sqlite_only
@pytest.mark.parametrize("method", ["WatchJob", "WatchJobs", "WatchOutput"])
async def test_streams_that_are_not_read_hold_no_more_than_their_caller_may(
    start: Start, tmp_path: Path, method: str
) -> None:
    """Each is sent 250 kB that its client has no room for; its caller may hold 600 kB."""
    quotas = "[caller.quotas]\nwaiting_bytes = 600_000"
    file = tmp_path / "access.toml"
    roles = 'roles = ["owner", "worker"]\nusers = ["eve"]\njob_types = ["*"]'
    write_access_file(file, rule("eve", f"{roles}\n{quotas}"))
    app = await start(access=file)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(grpc.aio.insecure_channel(app.address))
        eve = Caller(first, token="eve")
        job = await eve.running(user_id="eve", parameters=BLOB)
        for _ in range(4):
            await eve.AppendOutput(job_id=job.id, attempt=1, data=b"x" * 62_500)
        unread: list[Any] = []
        for _ in range(2):
            channel = grpc.aio.insecure_channel(app.address, SMALL_WINDOW)
            call = Caller(await stack.enter_async_context(channel), token="eve")
            stream = watch(call, job.id, method)
            await stack.enter_async_context(watching(stream))
            await stream.initial_metadata()
            unread.append(stream)
        refused = await refusal(watch(eve, job.id, method).read())
        assert refused.metadata["limit"] == "waiting_bytes"
        assert (refused.code, refused.metadata["scope"]) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "caller",
        )
        for stream in unread:
            assert b"x" * 1000 in (await stream.read()).SerializeToString()
        # Now that they are read it may be sent again.
        async with watching(watch(eve, job.id, method)) as again:
            assert b"x" * 1000 in (await again.read()).SerializeToString()


def watch(call: Caller, job_id: str, method: str) -> Any:
    if method == "WatchJobs":
        return call.WatchJobs(user_id="eve", view=FULL)
    fields = {} if method == "WatchOutput" else {"view": FULL}
    return getattr(call, method)(job_id=job_id, user_id="eve", **fields)


@sqlite_only
async def test_watches_of_many_jobs_with_their_payloads_have_a_limit_of_their_own(
    start: Start,
) -> None:
    app = await start(max_watches=1600)  # a quarter of one in 80, for one caller
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(app.address))
        call = Caller(channel)
        for _ in range(5):
            stream = call.WatchJobs(user_id="eve", view=FULL)
            assert (await (await stack.enter_async_context(watching(stream))).read()).synced
        refused = await refusal(call.WatchJobs(user_id="eve", view=FULL).read())
        assert refused.metadata["limit"] == "watches_of_full_jobs"
        async with watching(call.WatchJobs(user_id="eve", view=BASIC)) as other:
            assert (await other.read()).synced


@sqlite_only
async def test_a_page_of_jobs_with_their_payloads_is_a_third_of_another_one(start: Start) -> None:
    app = await start()
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = Caller(channel)
        for _ in range(6):
            await call.job(user_id="eve", parameters=BLOB)
        page = await call.ListJobs(user_id="eve", view=FULL)
        assert len(page.jobs) == 4
        assert page.ByteSize() < MAX_FULL_PAGE_BYTES
        rest = await call.ListJobs(user_id="eve", view=FULL, page_token=page.next_page_token)
        assert len(rest.jobs) == 2
