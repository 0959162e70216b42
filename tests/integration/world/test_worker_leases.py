"""How a worker counts its leases, where answers come late."""

import asyncio

from jobledger import AsyncClient, Worker
from jobledger.worker import ClaimedJob
from jobledger_world.world import World

LEASE = 60.0

LATE = 8.0
"""Seconds until the answer comes; more than the worker's margin of 5, and no stream is replaced."""


def test_a_late_answer_counts_for_all_leases_from_when_its_message_was_sent() -> None:
    sent, answered, lost = 0.0, asyncio.Event(), 0.0

    def make(client: AsyncClient) -> Worker:
        worker = Worker(client, concurrency=2, lease=LEASE)

        @worker.handler("silent")
        async def wait(_: ClaimedJob) -> None:
            nonlocal lost
            try:
                await asyncio.Event().wait()
            finally:
                lost = asyncio.get_running_loop().time()

        @worker.handler("reporting")
        async def report(job: ClaimedJob) -> None:
            nonlocal sent
            await asyncio.sleep(10)
            for connection in world.network.connections():
                connection.block(to_server=False)
            sent = asyncio.get_running_loop().time()
            asyncio.get_running_loop().call_later(LATE, world.repair)
            await job.progress(50, wait=True)
            answered.set()
            await asyncio.Event().wait()

        return worker

    async def main(world: World) -> None:
        (server,) = world.servers.values()
        async with world.client("ada") as client:
            for job_type in ("silent", "reporting"):
                await client.create_job(job_type)
        world.worker(make)
        await answered.wait()
        assert asyncio.get_running_loop().time() > sent + LATE
        world.network.closed[server.target] = "refused"
        for connection in world.network.connections():
            connection.block()
        await asyncio.sleep(2 * LEASE)

    world = World(1)
    world.run(main)
    assert sent < lost < sent + LEASE
