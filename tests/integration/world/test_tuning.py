"""A server's tuning: each of its numbers reaches the part that it is for."""

import asyncio
from dataclasses import fields
from datetime import UTC, datetime

from jobledger import AsyncClient, ClaimedJob, Worker
from jobledger_server.settings import Settings
from jobledger_server.tuning import Tuning
from jobledger_world.world import World


class Noted(Tuning):
    """Notes which of its numbers are read."""

    def __getattribute__(self, name: str) -> object:
        READ.add(name)
        return super().__getattribute__(name)


READ: set[str] = set()
SETTINGS = Settings(retain_terminal=60.0)


def a_worker(client: AsyncClient) -> Worker:
    worker = Worker(client)

    @worker.handler("render")
    async def render(job: ClaimedJob) -> None:
        await asyncio.sleep(1)

    return worker


async def use_everything(world: World) -> None:
    client = world.client("ada")
    await client.create_job("render")  # no claim waits for it yet
    await client.admin.pause_concurrency_key("paused")
    await client.create_job("render", concurrency_key="paused")  # a claim passes over it
    world.worker(a_worker)
    soon = datetime.fromtimestamp(world.machine.time() + 1, UTC)
    await client.create_job(
        "unclaimed", schedule_time=soon
    )  # other servers are told when it is due
    job = await client.create_job("render", schedule_time=soon, concurrency_key="k")
    await world.finished(job)
    written = await client.create_job("written")
    (held,) = await client.claim_jobs(["written"], worker_id="w")
    async with client.output(written) as pieces:
        await client.append_output(held, 1, "words", number=1)
        await anext(pieces)
    async with client.watch_jobs() as changes:
        await anext(changes)
    await client.cancel_jobs(all_jobs=True)
    server = world.servers["server-1"]
    await server.stop()
    server.boot()  # it fills its change buffer, and purges the job
    await asyncio.sleep(100)


def test_each_number_is_read() -> None:
    READ.clear()
    World(1, store="sqlite", settings=SETTINGS, tuning=Noted()).run(use_everything)
    World(1, servers=2, settings=SETTINGS, tuning=Noted()).run(use_everything)
    assert sorted({field.name for field in fields(Tuning)} - READ) == []
