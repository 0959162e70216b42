"""A call leaves nothing behind in the server once it has ended."""

import asyncio
from collections.abc import Mapping

import grpc

from jobledger_server.app import App
from tests.support.databases import both_databases
from tests.support.rpc_caller import Caller, watching
from tests.support.work_stream import working


async def holding(app: App, what: str) -> Mapping[str, int]:
    """Return what is held as soon as this is."""
    async with asyncio.timeout(20):
        while what not in (held := app.held()):
            await asyncio.sleep(0.001)
    return held


@both_databases
async def test_nothing_is_held_of_calls_that_have_ended(app: App, call: Caller) -> None:
    await call.job(job_type="print")
    watched = await call.job()
    async with (
        grpc.aio.insecure_channel(app.address) as channel,
        watching(call.WatchJob(job_id=watched.id, user_id="ada")) as of_one,
        watching(call.WatchJobs()) as of_many,
        working(channel, slots=2) as worker,
    ):
        await of_one.read()
        await of_many.read()
        await worker.jobs()
        held = await holding(app, "claim_waiters")  # the worker has a free slot
        assert held["feed_watches"] == held["work_streams"] == 1
        assert held["watches"] == held["watched"] == 2
        assert held["holders"] == 2  # the stream, and the job that it holds
        assert held["calls"] == held["calls_to_drain"] == 3
        assert held["claim_waiters"] == held["awaited_types"] == 1
        assert held["polled_types"] == 2  # by the stream and by its claim
    async with asyncio.timeout(20):
        while app.held():
            await asyncio.sleep(0.001)
