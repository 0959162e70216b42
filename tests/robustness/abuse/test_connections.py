"""Unused connections: they leave descriptors for others, and are closed."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from jobledger.v1 import job_service_pb2
from tests.robustness.abuse.attacker import attack
from tests.robustness.abuse.good_client import LONGEST_P99, good_client, served_alone
from tests.robustness.abuse.http2_attacks import idle, silent
from tests.support.databases import sqlite_only
from tests.support.http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GET_JOB,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    WATCH_JOBS,
    Connection,
    frame,
    message,
    request_headers,
    setting,
)
from tests.support.rpc_caller import Caller, refusal, watching
from tests.support.server_process import MIB, ServerProcess

DESCRIPTORS = 1_024
SILENT = 1_500


@pytest.mark.slow
@sqlite_only
async def test_silent_connections_leave_descriptors_for_others_and_are_closed(
    database_url: str, tmp_path: Path
) -> None:
    server = ServerProcess(tmp_path, database=database_url, descriptors=DESCRIPTORS)
    async with server:
        async with (
            good_client(server.target) as good,
            attack(silent, server.target, connections=SILENT) as attacker,
        ):
            await attacker.begun()
            # A tenth of the connections are freed for others well before ten seconds.
            async with asyncio.timeout(5):
                await _until_a_new_client_is_served(server.target)
            for _ in range(5):
                await served_alone(server.target, 0.2)
            # The rest are closed when they have not greeted for ten seconds.
            descriptors = Path(f"/proc/{server.pid}/fd")
            async with asyncio.timeout(20):
                while len(list(descriptors.iterdir())) > DESCRIPTORS / 2:
                    await asyncio.sleep(0.1)
        assert good.failed == []
        assert good.p50 < LONGEST_P99, good
        assert '"descriptor_limit_low"' in server.log.read_text()


async def _until_a_new_client_is_served(target: str) -> None:
    while True:
        try:
            await served_alone(target, 0.2)
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.05)
        else:
            return


@pytest.mark.slow
@sqlite_only
async def test_2000_idle_connections_delay_no_other_client(server: ServerProcess) -> None:
    alone = await served_alone(server.target)
    async with attack(idle, server.target, connections=2_000) as attacker:
        await attacker.begun()
        async with good_client(server.target) as good:
            await asyncio.sleep(2)
        assert await attacker.report() == {"connections": 2_000, "open": 2_000}
    good.assert_served(alone)
    assert server.peak_memory < 400 * MIB


@sqlite_only
async def test_a_connection_without_calls_is_closed_and_one_with_a_watch_is_not(
    start: Callable[..., object],
) -> None:
    app = await start(max_connection_idle=0.5, heartbeat=0.1)
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = Caller(channel)
        job = await call.job()
        async with watching(call.WatchJob(job_id=job.id, user_id="ada")) as stream:
            with Connection(app.address) as unused:
                for _ in range(20):  # two seconds of heartbeats, and no error
                    await stream.read()
                assert unused.closed.is_set()


async def test_near_the_connection_limit_the_oldest_idle_connection_is_closed(
    tmp_path: Path,
) -> None:
    async with (
        ServerProcess(tmp_path, arguments=("--max-connections", "40")) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        call = Caller(channel)
        job = await call.job()
        async with watching(call.WatchJob(job_id=job.id, user_id="ada")) as stream:
            await stream.read()
            with ExitStack() as stack:
                first = stack.enter_context(Connection(server.target))
                for _ in range(10):  # the kernel counts ages in milliseconds
                    await call.GetJob(job_id=job.id, user_id="ada")
                others = [stack.enter_context(Connection(server.target)) for _ in range(37)]
                assert await asyncio.to_thread(first.closed.wait, 10)
                assert not others[-1].closed.is_set()
            await call.CancelJob(job_id=job.id, user_id="ada")
            assert await stream.read() is not None


async def test_near_the_connection_limit_connections_with_calls_stay_open(tmp_path: Path) -> None:
    async with (
        ServerProcess(tmp_path, arguments=("--max-connections", "40")) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        call = Caller(channel)
        claim = asyncio.ensure_future(
            call.ClaimJobs(worker_id="w", job_types=["t"], wait=Duration(seconds=20))
        )
        with ExitStack() as stack:
            connections = [stack.enter_context(Connection(server.target)) for _ in range(37)]
            request = job_service_pb2.GetJobRequest(job_id="none", user_id="ada")
            for connection in connections:
                connection.send(
                    frame(HEADERS, END_HEADERS, 1, request_headers(GET_JOB)),
                    frame(DATA, END_STREAM, 1, message(request.SerializeToString())),
                )
            async with asyncio.timeout(10):
                while not any(connection.closed.is_set() for connection in connections):
                    await asyncio.sleep(0.05)
            await served_alone(server.target, 0.2)
        await call.job(job_type="t")
        assert len((await claim).jobs) == 1


@sqlite_only
async def test_more_connections_than_allowed_are_closed(start: Callable[..., object]) -> None:
    app = await start(max_connections=3)
    with ExitStack() as stack:
        opened = [stack.enter_context(Connection(app.address)) for _ in range(8)]
        async with asyncio.timeout(10):
            while sum(not connection.closed.is_set() for connection in opened) > 3:
                await asyncio.sleep(0.01)


@sqlite_only
async def test_a_watch_blocked_by_flow_control_ends_at_its_maximum_age(
    start: Callable[..., object],
) -> None:
    app = await start(max_watches=1, max_watch_age=0.2, heartbeat=0.05)
    request = job_service_pb2.WatchJobsRequest(user_id="eve").SerializeToString()
    with Connection(app.address, setting(INITIAL_WINDOW_SIZE, 0)) as attacker:
        attacker.send(
            frame(HEADERS, END_HEADERS, 1, request_headers(WATCH_JOBS)),
            frame(DATA, END_STREAM, 1, message(request)),
        )
        while not app.hub.watches:
            await asyncio.sleep(0.01)
        async with grpc.aio.insecure_channel(app.address) as channel:
            refused = await refusal(Caller(channel).WatchJobs(user_id="ada").read())
            assert refused.reason == "LIMIT_EXCEEDED"
        # A tenth more than the age, then one and a quarter ages and 5 s.
        assert await asyncio.to_thread(attacker.closed.wait, 30)
    async with grpc.aio.insecure_channel(app.address) as channel:
        await Caller(channel).WatchJobs(user_id="ada").read()


@sqlite_only
async def test_streams_of_a_connection_are_limited_and_further_calls_wait(
    start: Callable[..., object],
) -> None:
    app = await start(max_streams=2)
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = Caller(channel, timeout=30)
        job = await call.job()
        first, second = (call.WatchJob(job_id=job.id, user_id="ada") for _ in range(2))
        async with watching(second):
            async with watching(first):
                await asyncio.gather(first.read(), second.read())
                with pytest.raises(grpc.aio.AioRpcError, match="DEADLINE_EXCEEDED"):
                    await Caller(channel, timeout=0.5).GetJob(job_id=job.id, user_id="ada")
            await call.GetJob(job_id=job.id, user_id="ada")


@sqlite_only
async def test_a_shared_connection_has_as_many_streams_as_the_setting_allows(
    start: Callable[..., object],
) -> None:
    app = await start(max_streams=1_020)
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = Caller(channel)
        job = await call.job()
        with ExitStack() as stack:
            streams = [call.WatchJob(job_id=job.id, user_id="ada") for _ in range(1_000)]
            for stream in streams:
                stack.callback(stream.cancel)
            await asyncio.gather(*(stream.read() for stream in streams))
            await asyncio.gather(*(call.GetJob(job_id=job.id, user_id="ada") for _ in range(20)))
