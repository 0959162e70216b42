"""The lifecycle on Jobledger by its own client, a program: `worker TARGET` or `owners TARGET`."""

import asyncio
import sys
import time
from typing import cast

import uvloop

from benchmarks.peers.lifecycle import (
    IN_FLIGHT,
    PARAMETERS,
    PERCENTS,
    Life,
    answer,
    asset_url,
    live_many,
    result,
)
from jobledger_client import AsyncClient
from jobledger_client.worker import ClaimedJob, Completed, Worker


async def work(target: str) -> None:
    async with AsyncClient(target) as client, client.report_progress() as reports:
        worker = Worker(client, concurrency=IN_FLIGHT)

        @worker.handler("render")
        async def handle(job: ClaimedJob) -> Completed:
            for percent in PERCENTS:
                # Not `job.progress()`, of which the library sends ten a second at most.
                message = f"step {percent}"
                await reports.send(job.id, percent, progress_message=message, attempt=job.attempt)
            await job.add_asset("image/png", url=asset_url(job.id), file_size=1_234_567)
            return Completed(result())

        await worker.run(signals=False)


async def live(client: AsyncClient) -> Life:
    created = await client.create_job("render", PARAMETERS)
    seen: set[int] = set()
    async for message in client.watch(created.id):
        observed = time.monotonic()
        seen.add(message.job.progress)
    completed = cast("float", message.job.result["completed"])
    return completed, observed, len(seen.intersection(PERCENTS))


def own(target: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def connect() -> AsyncClient:
            return AsyncClient(target, user_id="benchmark")

        client = runner.run(connect())
        answer(lambda count: runner.run(live_many(count, lambda: live(client))))
        runner.run(client.close())


if __name__ == "__main__":
    role, server = sys.argv[1:]
    if role == "worker":
        uvloop.run(work(server))
    else:
        own(server)
