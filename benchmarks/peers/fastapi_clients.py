"""The clients of fastapi_service.py, a program: `worker URL` or `owners URL`."""

import asyncio
import sys
import time
from typing import Any

import aiohttp
import uvloop

from benchmarks.load import (
    PARAMETERS,
    PERCENTS,
    Life,
    asset_url,
    live_many,
    result,
)
from benchmarks.peers import answer, in_flight

POLL_SECONDS = 0.5
"""Between two readings of a job by its observer."""

IDLE_SECONDS = 0.1
"""From a claim that found no job to the next."""

IN_FLIGHT = in_flight()


def open_client(url: str) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    return aiohttp.ClientSession(url, connector=connector, raise_for_status=True)


async def work(url: str) -> None:
    running: set[asyncio.Task[None]] = set()
    async with open_client(url) as client, asyncio.TaskGroup() as group:
        while True:
            free = {"limit": IN_FLIGHT - len(running)}
            async with client.post("/claims", params=free) as response:
                jobs = await response.json()
            for job in jobs:
                task = group.create_task(handle(client, job["id"]))
                running.add(task)
                task.add_done_callback(running.discard)
            if not jobs:
                await asyncio.sleep(IDLE_SECONDS)
            elif len(running) == IN_FLIGHT:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)


async def handle(client: aiohttp.ClientSession, job_id: str) -> None:
    job = f"/jobs/{job_id}"
    for percent in PERCENTS:
        progress = {"progress": percent, "message": f"step {percent}"}
        await client.patch(f"{job}/progress", json=progress)
    asset = {"type": "image/png", "url": asset_url(job_id), "size": 1_234_567}
    await client.post(f"{job}/assets", json=asset)
    await client.post(f"{job}/complete", json={"result": result()})


async def live(client: aiohttp.ClientSession) -> Life:
    async with client.post("/jobs", json={"parameters": PARAMETERS}) as response:
        job: dict[str, Any] = await response.json()
    seen: set[int] = set()
    while job["status"] != "completed":
        await asyncio.sleep(POLL_SECONDS)
        async with client.get(f"/jobs/{job['id']}") as response:
            job = await response.json()
        seen.add(job["progress"])
    return job["result"]["completed"], time.monotonic(), len(seen.intersection(PERCENTS))


def own(url: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        async def connect() -> aiohttp.ClientSession:
            return open_client(url)

        client = runner.run(connect())
        answer(lambda count: runner.run(live_many(count, lambda: live(client), IN_FLIGHT)))
        runner.run(client.close())


if __name__ == "__main__":
    role, target = sys.argv[1:]
    if role == "worker":
        uvloop.run(work(target))
    else:
        own(target)
