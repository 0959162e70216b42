"""Workers that come back after an outage of three lease lengths, and one that does not.

Raw calls, as a worker in any language makes them. All outages at the same time: most of each
is waiting.
"""

import asyncio
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.databases import migrated
from tests.support.postgres_server import PostgresServer
from tests.support.rpc_caller import COMPLETED, FAILED, PROCESSING, Caller
from tests.support.server_process import ServerProcess
from tests.support.shared_postgres import Databases

LEASE = 5  # seconds, the shortest there is
OUTAGE = 3 * LEASE
LATE = 2  # seconds that the reaper may take to find what is due, on a busy machine

RECONNECT_AT_ONCE = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
]

Act = Callable[[], Any]


async def answered(call: Callable[..., Awaitable[Any]], **fields: Any) -> Any:
    """Repeat a call until the service answers it."""
    while True:
        try:
            return await call(**fields)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            await asyncio.sleep(0.1)


async def through(server: ServerProcess, begin: Act, end: Act) -> None:
    """Let an outage begin and end, with two workers that hold a job each."""
    async with grpc.aio.insecure_channel(server.target, options=RECONNECT_AT_ONCE) as channel:
        call = Caller(channel)

        async def changed(job: Any) -> Any:
            """Wait until a job or its lease has changed, and return it."""
            while True:
                now = (await answered(call.GetJob, job_id=job.id, user_id="ada")).job
                if (now.version, now.lease_expire_time) != (job.version, job.lease_expire_time):
                    return now
                await asyncio.sleep(0.1)

        for _ in range(2):
            await call.job(retry_policy={"max_attempts": 1})
        claimed = await call.ClaimJobs(
            worker_id="w", job_types=["render"], max_jobs=2, lease_duration={"seconds": LEASE}
        )
        back, gone = claimed.jobs
        await asyncio.to_thread(begin)
        await asyncio.sleep(OUTAGE)
        await asyncio.to_thread(end)
        extended = await changed(back)
        assert (extended.status, extended.attempt) == (PROCESSING, 1)
        half = {"progress": 50}
        report = await answered(call.UpdateProgress, job_id=back.id, attempt=1, progress=half)
        assert report.applied
        done = (await answered(call.MarkCompleted, job_id=back.id, attempt=1)).job
        assert (done.status, done.attempt) == (COMPLETED, 1)

        extended = await changed(gone)
        read = time.time_ns()
        if extended.status == PROCESSING:  # else it was extended and has expired since
            allowed = extended.lease_expire_time.ToNanoseconds()
            lost = await changed(extended)
            # An extension is a renewal, which is no change.
            assert extended.version == gone.version
            assert lost.version == gone.version + 1
            late_by = lost.complete_time.ToNanoseconds() - allowed
            assert 0 <= late_by < LATE * 10**9
            assert allowed - read <= LEASE * 10**9
            extended = lost
        assert (extended.status, extended.error.reason) == (FAILED, "LEASE_EXPIRED")


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_worker_that_returns_after_an_outage_of_three_leases_keeps_its_job(
    tmp_path: Path, postgres: Databases, postgres_template: str
) -> None:
    own = await asyncio.to_thread(PostgresServer)
    urls = [postgres.create_database(postgres_template) for _ in range(2)]
    urls.append(await asyncio.to_thread(lambda: migrated(own.create_database())))
    databases = {
        "sqlite, killed": None,
        "sqlite, frozen": None,
        "sqlite, file held": None,
        "postgresql, killed": urls[0],
        "postgresql, frozen": urls[1],
        "postgresql, stopped": urls[2],
    }
    servers = {}
    for name, database in databases.items():
        folder = tmp_path / name
        folder.mkdir()
        servers[name] = ServerProcess(folder, database=database)
    holder = sqlite3.connect(
        tmp_path / "sqlite, file held" / "jobledger.db",
        isolation_level=None,
        check_same_thread=False,
    )

    def outage(name: str) -> tuple[Act, Act]:
        server = servers[name]
        match name.rpartition(", ")[2]:
            case "killed":
                return server.kill, server.start
            case "frozen":
                freeze, thaw = signal.SIGSTOP, signal.SIGCONT
                return lambda: server.signal(freeze), lambda: server.signal(thaw)
            case "stopped":
                return own.stop, own.start
        return lambda: holder.execute("BEGIN IMMEDIATE"), lambda: holder.execute("ROLLBACK")

    try:
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers.values()))
        results = await asyncio.gather(
            *(through(server, *outage(name)) for name, server in servers.items()),
            return_exceptions=True,
        )
    finally:
        for server in servers.values():
            server.kill()
        holder.close()
        own.close()
    wrong = {name: repr(result) for name, result in zip(servers, results, strict=True) if result}
    assert wrong == {}
