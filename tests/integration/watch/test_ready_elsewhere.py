"""Claims that wait at another server than the one where jobs become ready: they are told."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from jobledger.v1 import queue_service_pb2 as pb
from jobledger.v1.queue_service_pb2_grpc import QueueServiceStub
from jobledger_server.app import App
from jobledger_server.tuning import Tuning
from tests.support.databases import several_servers
from tests.support.rpc_caller import Caller

pytestmark = several_servers

SECONDS = 20
"""For what happens at once, or never."""

Start = Callable[..., Awaitable[App]]


@pytest.fixture
def tuning() -> Tuning:
    """No regular polls, so that jobs that become ready are seen by notifications only."""
    return Tuning(look_seconds=3600)


class Server:
    """A server, how its methods are called, and how often it looked for ready jobs."""

    def __init__(self, app: App, channel: grpc.aio.Channel, patch: pytest.MonkeyPatch) -> None:
        self.app = app
        self.call = Caller(channel)
        self.queues = QueueServiceStub(channel)
        self.looks = 0
        look = app.store.news

        async def counted(job_types: Any) -> Any:
            self.looks += 1
            return await look(job_types)

        patch.setattr(app.store, "news", counted)

    def claim(self, wait: int = 3 * SECONDS) -> Any:
        return self.call.ClaimJobs(
            worker_id="w",
            job_types=["render"],
            wait=Duration(seconds=wait),
            lease_duration=Duration(seconds=60),
        )

    async def waiting(self, claim: Any) -> None:
        """Return when the claim waits, having found nothing."""
        async with asyncio.timeout(SECONDS):
            while not self.app.claim_waiters.awaited():
                await asyncio.sleep(0.001)
            # Its query, and one that comes with connecting, are over.
            await self.claim(wait=0)
        assert not claim.done()


@pytest.fixture
async def servers(start: Start, monkeypatch: pytest.MonkeyPatch) -> Any:
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(2):
            app = await start()
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(app.address))
            made.append(Server(app, channel, monkeypatch))
        yield made


async def slot_freed(here: Server, held: Any) -> None:
    await here.call.MarkCompleted(job_id=held.id, attempt=held.attempt)


async def key_resumed(here: Server, held: Any) -> None:
    await here.queues.ResumeConcurrencyKey(pb.ResumeConcurrencyKeyRequest(name="stripe"))


async def limit_raised(here: Server, held: Any) -> None:
    await here.queues.SetConcurrencyLimit(
        pb.SetConcurrencyLimitRequest(name="stripe", max_running=2)
    )


async def type_resumed(here: Server, held: Any) -> None:
    await here.queues.ResumeJobType(pb.ResumeJobTypeRequest(job_type="render"))


@pytest.mark.parametrize("freed", [slot_freed, key_resumed, limit_raised, type_resumed])
async def test_a_claim_gets_a_job_that_another_server_made_ready_without_a_poll(
    servers: list[Server], freed: Callable[[Server, Any], Awaitable[None]]
) -> None:
    here, there = servers
    if freed is not key_resumed:
        limit = pb.SetConcurrencyLimitRequest(name="stripe", max_running=1)
        await here.queues.SetConcurrencyLimit(limit)
    jobs = [await here.call.job(concurrency_key="stripe") for _ in range(2)]
    (held,) = (await here.claim(wait=0)).jobs
    assert held.id == jobs[0].id
    if freed is key_resumed:
        await here.queues.PauseConcurrencyKey(pb.PauseConcurrencyKeyRequest(name="stripe"))
    if freed is type_resumed:
        await here.queues.SetConcurrencyLimit(pb.SetConcurrencyLimitRequest(name="stripe"))
        await here.queues.PauseJobType(pb.PauseJobTypeRequest(job_type="render"))
    claim = there.claim()
    await there.waiting(claim)
    await freed(here, held)
    (job,) = (await claim).jobs
    assert job.id == jobs[1].id
