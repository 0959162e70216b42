"""A worker's one stream, with as much on it as may be: others are served, and memory is bounded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from jobledger.v1 import worker_service_pb2 as pb
from jobledger_server.domain.limits import MAX_UPDATES
from tests.robustness.abuse.attacker import attack, begin, parent_waits, wait_for_parent
from tests.robustness.abuse.good_client import LONGEST_P99, good_client, served_alone
from tests.support.databases import sqlite_only
from tests.support.rpc_caller import Caller
from tests.support.server_process import MIB, ServerProcess
from tests.support.work_stream import WorkStream, progressed, working

pytestmark = [sqlite_only, pytest.mark.slow]  # both databases are written to alike

MESSAGE_BYTES = 551_000

BLOCKED_SECONDS = 3
"""A message that is not taken in this time is taken to be blocked: others take 0.03 s."""


@asynccontextmanager
async def worker_with_a_job(target: str) -> AsyncIterator[tuple[WorkStream, list[pb.JobUpdate]]]:
    """Yield a worker's stream, and the updates of the largest message about its job."""
    async with grpc.aio.insecure_channel(target) as channel:
        job = await Caller(channel).running(user_id="eve")
        async with working(channel, holding=[job]) as worker:
            text = "x" * (MESSAGE_BYTES // MAX_UPDATES - 60)
            yield (
                worker,
                [progressed(job, 1, progress_message=f"{n:03}{text}") for n in range(MAX_UPDATES)],
            )


def updates(target: str) -> object:
    """Send the largest messages and read the results, until the test has seen enough."""

    async def flood() -> dict[str, int]:
        async with worker_with_a_job(target) as (worker, updates):
            begin()
            sent = results = 0
            while parent_waits():
                await worker.send(updates=updates)
                sent += 1
                results += len(await worker.results(MAX_UPDATES))
            return {"messages": sent, "results": results, "bytes": updates_bytes(updates)}

    return asyncio.run(flood())


def updates_bytes(updates: list[pb.JobUpdate]) -> int:
    return pb.WorkRequest(updates=updates).ByteSize()


def unread_updates(target: str) -> object:
    """Send the largest messages and read nothing, until no more is taken."""

    async def flood() -> dict[str, int]:
        async with worker_with_a_job(target) as (worker, updates):
            sent = 0
            try:
                while True:
                    async with asyncio.timeout(BLOCKED_SECONDS):
                        await worker.send(updates=updates)
                    sent += 1
            except TimeoutError:
                begin()
            await asyncio.to_thread(wait_for_parent)
            return {"messages": sent}

    return asyncio.run(flood())


async def test_a_flood_of_the_largest_work_messages_does_not_delay_other_clients(
    server: ServerProcess,
) -> None:
    alone = await served_alone(server.target)
    before = server.peak_memory
    async with attack(updates, server.target) as attacker:
        await attacker.begun()
        async with good_client(server.target) as good:
            await asyncio.sleep(3)
        report: dict[str, Any] = await attacker.report()
    assert report["results"] == report["messages"] * MAX_UPDATES > 0
    assert report["bytes"] > MESSAGE_BYTES * 0.95
    assert good.failed == [], good
    # 0.02 s: it has its turn in each batch, and a batch has half of a message's updates.
    assert good.p50_of_creations < LONGEST_P99, f"{good}; alone: {alone}"
    assert server.peak_memory - before < 100 * MIB


async def test_the_server_stops_reading_from_a_worker_that_reads_no_results(
    server: ServerProcess,
) -> None:
    alone = await served_alone(server.target)
    before = server.peak_memory
    async with (
        attack(unread_updates, server.target) as attacker,
        good_client(server.target) as good,
    ):
        await attacker.begun()
        report: dict[str, int] = await attacker.report()
    # Its results wait for it, a thousand at most, and gRPC takes some messages before it is asked.
    assert report["messages"] < 200
    assert good.failed == [], good
    # 0.02 s: it has its turn in each batch, and a batch has half of a message's updates.
    assert good.p50_of_creations < LONGEST_P99, f"{good}; alone: {alone}"
    assert server.peak_memory - before < 100 * MIB
