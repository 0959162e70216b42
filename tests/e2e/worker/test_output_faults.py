"""What handlers write while the service is away, or their job is stopped."""

import asyncio
import sys
import time
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from jobledger import AsyncClient, JobStatus
from jobledger.worker import BlockingJob, ClaimedJob, Worker
from tests.e2e.worker.conftest import SECONDS, Running
from tests.support.proxy import Proxy
from tests.support.server_process import ServerProcess

KIB = 1024
SLEEPS = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"]


async def whole(client: AsyncClient, job_id: str) -> bytes:
    async with asyncio.timeout(SECONDS):
        return b"".join([piece.data async for piece in client.output(job_id)])


async def test_output_is_stored_once_and_whole_though_the_workers_stream_breaks(
    server: ServerProcess, client: AsyncClient, running: Running, job_type: str
) -> None:
    async with Proxy(server.target) as proxy, AsyncClient(proxy.target) as behind:
        worker = Worker(behind, lease=30)

        @worker.handler(job_type)
        async def write(job: ClaimedJob) -> None:
            for number in range(60):
                await job.write(f"line {number}\n")
                match number % 10:
                    case 3:  # appends are stored, and their answers are lost
                        proxy.swallow_answers()
                    case 5:
                        await asyncio.sleep(0.06)
                        proxy.cut()
                        proxy.release_answers()
                    case 8:
                        await job.write("", wait=True)

        run = running(worker)
        job = await client.create_job(job_type)
        found = await whole(client, job.id)
        assert found == b"".join(b"line %d\n" % number for number in range(60))
        worker.stop()
        await run


@pytest.mark.parametrize("kind", ["async", "plain", "prints"])
async def test_a_handler_waits_while_the_service_is_away_and_loses_nothing(
    server: ServerProcess, client: AsyncClient, running: Running, job_type: str, kind: str
) -> None:
    async with Proxy(server.target) as proxy, AsyncClient(proxy.target) as behind:
        worker = Worker(behind, lease=60)
        written = 0
        piece = "x" * (16 * KIB - 1) + "\n"

        def count() -> None:
            nonlocal written
            written += len(piece)

        async def write_async(job: ClaimedJob) -> None:
            await job.write("begun", wait=True)
            proxy.swallow()
            for _ in range(40):
                await job.write(piece)
                count()

        def write_plain(job: BlockingJob) -> None:
            job.write("begun", wait=True)
            proxy.swallow()
            for _ in range(40):
                job.write(piece)
                count()

        def write_prints(job: BlockingJob) -> None:
            job.write("begun", wait=True)
            proxy.swallow()
            with job.capture_prints():
                for _ in range(40):
                    print(piece, end="")  # noqa: T201
                    count()

        handlers: dict[str, Any] = {
            "async": write_async,
            "plain": write_plain,
            "prints": write_prints,
        }
        worker.handler(job_type)(handlers[kind])
        run = running(worker)
        job = await client.create_job(job_type)
        async with asyncio.timeout(SECONDS):
            while written < 256 * KIB:
                await asyncio.sleep(0.01)
            # It would have written all of it by now many times.
            await asyncio.sleep(0.3)
            assert written <= 256 * KIB + len(piece)
        proxy.cut()
        proxy.release()
        assert await whole(client, job.id) == b"begun" + piece.encode() * 40
        worker.stop()
        await run


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_cancelled_job_ends_the_program_that_it_runs(
    client: AsyncClient, running: Running, job_type: str, kind: str
) -> None:
    worker = Worker(client)

    async def run_async(job: ClaimedJob) -> None:
        await job.run_program(SLEEPS)

    def run_plain(job: BlockingJob) -> None:
        job.run_program(SLEEPS)

    worker.handler(job_type)(run_async if kind == "async" else run_plain)
    running(worker)
    job = await client.create_job(job_type)
    async with asyncio.timeout(SECONDS), client.output(job) as pieces:
        async for piece in pieces:
            if piece.data:
                break
    program = psutil.Process(int(piece.text))
    await client.cancel_job(job)
    done = await client.wait(job, timeout=SECONDS)
    assert (done.status, done.error.reason) == (JobStatus.FAILED, "CANCELLED")
    await asyncio.to_thread(program.wait, SECONDS)


async def test_a_handler_that_waits_to_write_can_be_cancelled_while_the_service_is_away(
    server: ServerProcess, client: AsyncClient, running: Running, job_type: str
) -> None:
    """A plain function learns of it within a second, from the call that waits."""
    async with Proxy(server.target) as proxy, AsyncClient(proxy.target) as behind:
        worker = Worker(behind, lease=60, grace=0)
        stopped: list[float] = []
        waits = asyncio.Event()
        loop = asyncio.get_running_loop()

        @worker.handler(job_type)
        def write(job: BlockingJob) -> None:
            job.write("begun", wait=True)
            proxy.swallow()
            loop.call_soon_threadsafe(waits.set)
            try:
                job.write("x" * 1024 * KIB)
            except asyncio.CancelledError:
                stopped.append(time.monotonic())
                raise

        run = running(worker)
        await client.create_job(job_type)
        async with asyncio.timeout(SECONDS):
            await waits.wait()
            begun = time.monotonic()
            worker.stop(now=True)
            while not stopped:
                await asyncio.sleep(0.01)
        assert stopped[0] - begun < 5
        proxy.cut()
        proxy.release()
        await run
