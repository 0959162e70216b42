"""What a stream of work does while the database keeps it waiting."""

import asyncio

import pytest

from jobledger.v1 import worker_service_pb2 as pb
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from jobledger_server.settings import Settings
from jobledger_world.world import World

STEPS = 3000
"""A run that repeats something without a pause takes far more."""


@pytest.mark.parametrize("ends", ["the server drains", "the worker ends it"])
def test_a_stream_that_ends_waits_for_its_results_without_running(ends: str) -> None:
    async def main(world: World) -> None:
        (server,) = world.servers.values()
        async with world.client("ada") as client:
            job = await client.create_job("render")
        async with world.network.channel(server.target) as channel:
            call = WorkerServiceStub(channel).Work()
            hello = pb.WorkHello(worker_id="w1", job_types=["render"])
            await call.write(pb.WorkRequest(hello=hello, slots=1))
            while not (await call.read()).jobs:
                pass
            world.disk.stall(3.5)
            update = pb.JobUpdate(job_id=job.id, attempt=1, progress=pb.ProgressUpdate(progress=50))
            await call.write(pb.WorkRequest(updates=[update]))
            await asyncio.sleep(0.1)
            if ends == "the server drains":
                stopping = asyncio.ensure_future(server.stop())
            else:
                await call.done_writing()
            while not (message := await call.read()).results:
                pass
            assert message.results[0].applied
            if ends == "the server drains":
                await stopping

    world = World(1, settings=Settings(heartbeat=1.0))
    world.loop.max_steps = STEPS
    world.run(main)
