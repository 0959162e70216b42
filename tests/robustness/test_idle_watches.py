"""Watches that wait: each costs as much as a stream does, however large its jobs are."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.databases import sqlite_only
from tests.support.rpc_caller import Caller
from tests.support.server_process import MANY_STREAMS, ServerProcess

pytestmark = [
    sqlite_only,
    pytest.mark.slow,
]  # what a watch keeps has nothing to do with the database

WATCHES = 500
JOBS = 2

EACH = 128 * 1024
"""Bytes that a watch may take: half of its job. A stream alone takes 25 KiB."""


async def all_active(stream: Any) -> None:
    while not (await stream.read()).synced:
        pass


@pytest.mark.parametrize("method", ["WatchJob", "WatchJobs"])
async def test_an_idle_watch_keeps_nothing_of_a_large_job(
    database_url: str, tmp_path: Path, method: str
) -> None:
    async with (
        ServerProcess(tmp_path, database=database_url, arguments=MANY_STREAMS) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        call = Caller(channel)
        large = {"blob": "x" * 250_000}
        jobs = [await call.running(parameters=large) for _ in range(JOBS)]
        before = server.memory
        if method == "WatchJob":
            ids = [job.id for job in jobs] * (WATCHES // JOBS)
            streams = [call.WatchJob(job_id=job_id, user_id="ada") for job_id in ids]
            await asyncio.gather(*(stream.read() for stream in streams))
        else:
            streams = [call.WatchJobs(user_id="ada") for _ in range(WATCHES)]
            await asyncio.gather(*(all_active(stream) for stream in streams))
        grown = server.memory - before
        for stream in streams:
            stream.cancel()
    assert grown < WATCHES * EACH
