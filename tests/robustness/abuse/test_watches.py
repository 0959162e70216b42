"""Old tokens: one caller that resumes hundreds of watches, and clients that do not read them."""

import asyncio
import time
from collections.abc import Mapping

import grpc
import pytest

from jobledger.v1 import job_service_pb2
from jobledger_server.tuning import Tuning
from tests.robustness.abuse.attacker import attack, begin, parent_waits, wait_for_parent
from tests.robustness.abuse.good_client import good_client, served_alone
from tests.support.databases import sqlite_only
from tests.support.http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    WATCH_JOBS,
    Connection,
    frame,
    message,
    request_headers,
    setting,
)
from tests.support.rpc_caller import Caller, watching
from tests.support.server_process import ServerProcess

JOBS = 2 * Tuning().buffered_changes
"""Half of them have left the change buffer."""

pytestmark = pytest.mark.slow

RESUMED = 200
STALLED = 300


def resume(target: str, *, token: str, count: int) -> Mapping[str, object]:
    """Resume watches again and again from an old token, with a filter that nothing matches."""
    return asyncio.run(_resume(target, token, count))


async def _resume(target: str, token: str, count: int) -> Mapping[str, object]:
    async with grpc.aio.insecure_channel(target) as channel:
        call = Caller(channel)

        async def one() -> None:
            while True:
                async with watching(
                    call.WatchJobs(labels={"no": "such"}, resume_token=token)
                ) as stream:
                    while not (await stream.read()).synced:
                        pass

        tasks = [asyncio.create_task(one()) for _ in range(count)]
        await asyncio.sleep(1)  # by now all of them wait for their turns
        begin()
        while parent_waits():
            await asyncio.sleep(0.05)
        failed = sum(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return {"failed": failed}


def stall(target: str, *, token: str, count: int) -> Mapping[str, object]:
    """Resume watches, and never read from them."""
    request = message(job_service_pb2.WatchJobsRequest(resume_token=token).SerializeToString())
    headers = request_headers(WATCH_JOBS)
    connection = Connection(target, setting(INITIAL_WINDOW_SIZE, 0))
    for stream in range(1, 2 * count, 2):
        connection.send(
            frame(HEADERS, END_HEADERS, stream, headers),
            frame(DATA, END_STREAM, stream, request),
        )
    begin()
    wait_for_parent()
    return {"closed": connection.closed.is_set()}


async def old_token(call: Caller, **filters: object) -> str:
    async with watching(call.WatchJobs(**filters)) as stream:
        while not (heard := await stream.read()).synced:
            pass
        return str(heard.resume_token)


async def create(call: Caller, jobs: int, size: int) -> None:
    """Create jobs of `size` bytes, as many at a time as fit in a message."""
    job = job_service_pb2.CreateJobRequest(user_id="ada", job_type="t")
    job.parameters["blob"] = "x" * size
    at_once = min(1000, 900_000 // size)
    for first in range(0, jobs, at_once):
        count = min(at_once, jobs - first)
        await call.BatchCreateJobs(user_id="ada", requests=[job] * count)


async def seconds_to_sync(call: Caller, token: str) -> float:
    begin = time.monotonic()
    seen = 0
    async with watching(call.WatchJobs(user_id="ada", resume_token=token)) as stream:
        while not (heard := await stream.read()).synced:
            seen += len(heard.changes.changes)
    assert seen == JOBS
    return time.monotonic() - begin


async def test_many_old_tokens_of_one_caller_do_not_delay_other_watches(
    proxied_server: ServerProcess,
) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(proxied_server.target, options) as channel:
        call = Caller(channel)
        token = await old_token(call, user_id="ada")
        theirs = await old_token(call, labels={"no": "such"})
        await create(call, JOBS, 100)
        alone = await served_alone(proxied_server.target)
        undisturbed = await seconds_to_sync(call, token)
        async with attack(resume, proxied_server.target, token=theirs, count=RESUMED) as attacker:
            await attacker.begun()
            async with good_client(proxied_server.target) as good:
                taken = await seconds_to_sync(call, token)
            assert await attacker.report() == {"failed": 0}
    # First come, first served it would take two hundred times as long.
    assert taken < max(5.0, 20 * undisturbed)
    good.assert_served(alone)


@sqlite_only
async def test_a_watch_that_does_not_read_uses_the_memory_of_one_message(
    proxied_server: ServerProcess,
) -> None:
    async with grpc.aio.insecure_channel(proxied_server.target) as channel:
        call = Caller(channel)
        token = await old_token(call)
        await create(call, 300, 250_000)
        before = proxied_server.peak_memory
        async with attack(stall, proxied_server.target, token=token, count=STALLED) as attacker:
            await attacker.begun()
            async with good_client(proxied_server.target) as good:
                await asyncio.sleep(3)
            assert await attacker.report() == {"closed": False}
        assert good.failed == []
    assert proxied_server.peak_memory - before < STALLED * 400_000
