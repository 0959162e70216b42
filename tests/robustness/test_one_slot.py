"""A limit of one, under many workers at several servers: never two jobs at once, hardly ever none.

`JOBLEDGER_ONE_SLOT_JOBS=600` makes it last a minute. How much of the time the slot was idle depends
on the machine: it is printed (`-s`), and no part of the promise.
"""

import asyncio
import os
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import text

from jobledger.v1 import queue_service_pb2 as pb
from jobledger.v1.queue_service_pb2_grpc import QueueServiceStub
from jobledger_server.check.invariants import violations
from jobledger_server.sql.database import Database
from tests.support.databases import several_servers
from tests.support.rpc_caller import Caller
from tests.support.server_process import ServerProcess

SERVERS, WORKERS = 3, 64
JOBS = int(os.environ.get("JOBLEDGER_ONE_SLOT_JOBS", "20"))
RUN_SECONDS = 0.1

pytestmark = [several_servers, pytest.mark.timeout(120 + JOBS)]


async def work(call: Caller, ended: list[str], done: asyncio.Event) -> None:
    """Claim and complete jobs until all are done."""
    while not done.is_set():
        claim = call.ClaimJobs(
            worker_id="w",
            job_types=["charge"],
            wait=Duration(seconds=20),
            lease_duration=Duration(seconds=60),
        )
        for job in (await claim).jobs:
            await asyncio.sleep(RUN_SECONDS)
            await call.MarkCompleted(job_id=job.id, attempt=job.attempt)
            ended.append(job.id)
            if len(ended) == JOBS:
                done.set()


async def test_one_slot_never_holds_two_jobs(
    tmp_path: Path, database_url: str, database: Database
) -> None:
    ended: list[str] = []
    done = asyncio.Event()
    async with AsyncExitStack() as stack:
        channels: list[Any] = []
        for number in range(SERVERS):
            folder = tmp_path / str(number)
            folder.mkdir()
            server = ServerProcess(folder, database=database_url, arguments=["--caller-share", "1"])
            await stack.enter_async_context(server)
            channel = grpc.aio.insecure_channel(server.target)
            channels.append(await stack.enter_async_context(channel))
        limit = pb.SetConcurrencyLimitRequest(name="stripe", max_running=1)
        await QueueServiceStub(channels[0]).SetConcurrencyLimit(limit)
        for number in range(JOBS):
            await Caller(channels[number % SERVERS]).job(
                job_type="charge", concurrency_key="stripe:1"
            )
        workers = [
            asyncio.create_task(work(Caller(channels[n % SERVERS]), ended, done))
            for n in range(WORKERS)
        ]
        await asyncio.wait(
            [asyncio.create_task(done.wait()), *workers], return_when="FIRST_COMPLETED"
        )
        for worker in workers:
            worker.cancel()
        failed = await asyncio.gather(*workers, return_exceptions=True)
    assert done.is_set(), failed
    async with database.reader.connect() as connection:
        rows = (
            await connection.execute(
                text(
                    "SELECT start_seq, change_seq, start_time, complete_time, attempt FROM jobs"
                    " ORDER BY start_seq"
                )
            )
        ).all()
    assert [row.attempt for row in rows] == [1] * JOBS
    # In the order of the commits: the clock is read before the lock.
    assert all(one.change_seq < other.start_seq for one, other in pairwise(rows))
    assert await violations(database) == []
    busy = sum(row.complete_time - row.start_time for row in rows)
    idle = 1 - busy / (rows[-1].complete_time - rows[0].start_time)
    print(f"the slot was idle for {idle:.1%} of the time")  # noqa: T201
