"""Callers can neither stop the log nor write into it."""

import asyncio
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from jobledger.v1 import worker_service_pb2 as workers
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from tests.robustness.abuse.attacker import attack
from tests.robustness.abuse.good_client import good_client
from tests.robustness.abuse.odd_calls import METHODS, SENT, TOKEN, odd_calls
from tests.support.access_file import write_access_file
from tests.support.databases import sqlite_only
from tests.support.rpc_caller import Caller
from tests.support.server_process import ServerProcess


@sqlite_only
async def test_no_request_content_gets_into_the_log(tmp_path: Path, database_url: str) -> None:
    access = tmp_path / "access.toml"
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    write_access_file(
        access,
        f"[[caller]]\nname = 'web'\ntoken_sha256 = '{digest}'\nusers = ['*']\n"
        "roles = ['owner', 'worker']\njob_types = ['*']\n",
    )
    arguments = ["--access", str(access), "--reflection", "--heartbeat", "0.05"]
    server = ServerProcess(tmp_path, database=database_url, arguments=arguments)
    async with server:
        begun = time.monotonic()
        async with attack(odd_calls, server.target, methods=METHODS) as attacker:
            assert await attacker.report() == {"methods": len(METHODS)}
            await asyncio.to_thread(server.terminate)
    text = server.log.read_text()
    assert TOKEN not in text
    assert SENT not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line for line in lines if "exception" in line or line["level"] == "error"] == []
    of_libraries = [line for line in lines if line["event"] == "library_message"]
    assert sum(line["count"] for line in of_libraries) >= len(METHODS)
    kinds = {(line["logger"], line["text"]) for line in of_libraries}
    # The first line of a kind, then one a second, and the rest when the server stops.
    assert len(of_libraries) <= len(kinds) * (1 + (time.monotonic() - begun) + 1)


@contextmanager
def nobody_reads(log: Path) -> Iterator[int]:
    """Make the log a pipe that is soon full, and return its other end."""
    os.mkfifo(log)
    end = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
    try:
        yield end
    finally:
        os.close(end)


def read_all(end: int) -> bytes:
    """Read the log until its writer closes it."""
    os.set_blocking(end, True)
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 2**20)
    return b"".join(iter(lambda: os.read(end, 2**20), b""))


MANY = 4_500
"""More lines than fit into the queue."""

LONG_NAME = "\N{GRINNING FACE}" * 128
"""A worker's name that makes each line of a transition 1.7 kB long."""


async def transitions(call: Caller, count: int) -> None:
    """Cause so many log lines of 1.7 kB, a multiple of 100."""
    for _ in range(count // 100):
        await call.BatchCreateJobs(user_id="ada", requests=[{"job_type": "many"}] * 100)
        claimed = await call.ClaimJobs(worker_id=LONG_NAME, job_types=["many"], max_jobs=100)
        assert len(claimed.jobs) == 100


@sqlite_only
async def test_a_blocked_log_pipe_does_not_block_the_server(
    tmp_path: Path, database_url: str
) -> None:
    server = ServerProcess(tmp_path, database=database_url)
    with nobody_reads(server.log) as end:
        async with server, grpc.aio.insecure_channel(server.target) as channel:
            await transitions(Caller(channel), MANY)
            async with good_client(server.target) as good:
                await asyncio.sleep(2)
            assert good.failed == []
            reading = asyncio.to_thread(read_all, end)
            text, code = await asyncio.gather(reading, asyncio.to_thread(server.terminate))
            assert code == 0
    lines = [json.loads(line) for line in text.splitlines()]
    events = [line["event"] for line in lines]
    lost = sum(line["lost"] for line in lines if line["event"] == "log_lines_lost")
    assert lost > 0
    assert events.count("transition") + lost >= MANY
    assert len(text) < 10 * 1024 * 1024


@sqlite_only
async def test_a_server_with_a_blocked_log_pipe_stops_on_sigterm(
    tmp_path: Path, database_url: str
) -> None:
    server = ServerProcess(tmp_path, database=database_url)
    with nobody_reads(server.log):
        async with server, grpc.aio.insecure_channel(server.target) as channel:
            await transitions(Caller(channel), 100)
            assert await asyncio.to_thread(server.terminate) == 0


REPORTS = 1_000


@sqlite_only
async def test_late_reports_are_merged_into_one_log_line(tmp_path: Path, database_url: str) -> None:
    server = ServerProcess(tmp_path, database=database_url)
    begun = time.monotonic()
    async with server, grpc.aio.insecure_channel(server.target) as channel:
        job = await Caller(channel).ended()
        progress = workers.ProgressUpdate(progress=1)
        late = workers.JobUpdate(job_id=job.id, attempt=1, progress=progress)
        stream: Any = WorkerServiceStub(channel).Work()
        hello = workers.WorkHello(worker_id="w", job_types=["t"])
        await stream.write(workers.WorkRequest(hello=hello))

        async def report() -> None:
            for _ in range(REPORTS):
                await stream.write(workers.WorkRequest(updates=[late]))
            await stream.done_writing()

        reporting = asyncio.create_task(report())
        answers = 0
        while (answer := await stream.read()) is not grpc.aio.EOF:
            answers += len(answer.results)
            assert not any(result.applied for result in answer.results)
        await reporting
        await asyncio.to_thread(server.terminate)
    assert answers == REPORTS
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    shared = [line for line in lines if line["event"] == "late_progress_reports"]
    assert sum(line["count"] for line in shared) == REPORTS
    # The first at once, then one a second, and what is left at the end.
    assert len(shared) <= time.monotonic() - begun + 2
