"""Watches that wait: each costs as much as a stream does, however large its jobs are."""

import statistics
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.rpc_caller import Caller
from tests.support.server_process import MANY_STREAMS, ServerProcess

pytestmark = pytest.mark.slow  # thousands of streams

BATCHES, BATCH = 7, 120
"""Watches, opened a batch at a time."""

CALLS = 300

ARGUMENTS = (*MANY_STREAMS, "--max-watches", "80000", "--caller-share", "1")
"""A thousand watches of many jobs in the view FULL, one in 80 of all, by one caller."""

SMALL, LARGE = 10, 250_000
"""Bytes of a job's parameters."""

STREAM = 25 * 1024
"""Bytes that a stream alone takes."""

EACH = 40 * 1024
"""Bytes that a watch may take."""


async def all_active(stream: Any) -> None:
    while not (await stream.read()).synced:
        pass


async def memory_of_a_watch(method: str, size: int, folder: Path) -> float:
    """Return the bytes that a server grows by with a watch of a job with parameters of this size.

    What other things grow by once, such as the database's page caches, falls on some batches of
    watches, so the median is that of the watches.
    """
    folder.mkdir()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(ServerProcess(folder, arguments=ARGUMENTS))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.target))
        call = Caller(channel)
        job = await call.running(parameters={"blob": "x" * size})

        async def watch() -> Any:
            if method == "WatchJob":
                stream = call.WatchJob(job_id=job.id, user_id="ada")
                await stream.read()
            else:
                stream = call.WatchJobs(user_id="ada", view="JOB_VIEW_FULL")
                await all_active(stream)
            return stream

        async def memory() -> int:
            """Return the server's memory, without what is left of calls until it is collected."""
            for _ in range(CALLS):
                await call.GetJob(job_id=job.id, user_id="ada", view="JOB_VIEW_BASIC")
            return server.memory

        streams: list[Any] = []
        seen = []
        for _ in range(1 + BATCHES):
            streams += [await watch() for _ in range(BATCH)]
            seen.append(await memory())
        for stream in streams:
            stream.cancel()
    return statistics.median(after - before for before, after in pairwise(seen)) / BATCH


@pytest.mark.parametrize("method", ["WatchJob", "WatchJobs"])
async def test_an_idle_watch_of_a_large_job_costs_as_much_as_one_of_a_small_job(
    tmp_path: Path, method: str
) -> None:
    small, large = [
        await memory_of_a_watch(method, size, tmp_path / str(size)) for size in (SMALL, LARGE)
    ]
    # A watch that seems to take less than its stream has got memory that was free before.
    assert large < 1.1 * max(small, STREAM), f"{large:.0f} B instead of {small:.0f}"
    assert large < EACH, f"{large:.0f} B"
