"""Watches continue when the real server is killed or drained."""

import asyncio
import contextlib
import signal
from collections.abc import Callable

import pytest

from jobledger import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    JobChange,
    JobStatus,
    Unavailable,
)

PROCESSING = JobStatus.PROCESSING
COMPLETED = JobStatus.COMPLETED


class Seen:
    """What one watch has yielded so far."""

    def __init__(self) -> None:
        self.messages: list[JobChange] = []
        self._news = asyncio.Condition()

    async def add(self, message: JobChange) -> None:
        async with self._news:
            self.messages.append(message)
            self._news.notify_all()

    async def until(self, reached: Callable[[JobChange], bool]) -> None:
        async with self._news, asyncio.timeout(30):
            await self._news.wait_for(lambda: any(map(reached, self.messages)))


def kill(server):
    server.restart()


def drain(server):
    assert server.terminate() == 0
    server.start()


@pytest.mark.parametrize("interrupt", [kill, drain])
async def test_a_watch_yields_every_transition_once_and_in_order(own_server, interrupt):
    seen_async, seen_sync = Seen(), Seen()
    loop = asyncio.get_running_loop()

    async def follow(client, job_id):
        async for message in client.watch(job_id):
            await seen_async.add(message)

    def follow_blocking(client, job_id):
        for message in client.watch(job_id):
            asyncio.run_coroutine_threadsafe(seen_sync.add(message), loop).result()

    async def everybody_has(reached):
        await asyncio.gather(seen_async.until(reached), seen_sync.until(reached))

    with Client(own_server.target, user_id="ada") as blocking:
        async with (
            AsyncClient(own_server.target, user_id="ada") as client,
            asyncio.TaskGroup() as t,
        ):
            job = await client.create_job("render")
            t.create_task(follow(client, job.id))
            t.create_task(asyncio.to_thread(follow_blocking, blocking, job.id))
            await everybody_has(lambda message: message.job.version == 1)

            await asyncio.to_thread(interrupt, own_server)
            await client.start_job(job.id)
            await client.update_progress(job.id, 10, attempt=1)
            await everybody_has(lambda message: message.job.progress == 10)

            await asyncio.to_thread(interrupt, own_server)
            for progress in range(11, 60):
                await client.update_progress(job.id, progress, attempt=1)
            await asyncio.to_thread(interrupt, own_server)
            done = await client.mark_completed(job.id, attempt=1)

    for seen in (seen_async, seen_sync):
        versions = [message.job.version for message in seen.messages]
        assert versions == sorted(set(versions))
        assert seen.messages[-1].job == done
        steps = [step for message in seen.messages for step in message.transitions]
        assert [step.to_status for step in steps] == [PROCESSING, COMPLETED]


async def test_a_kill_loses_no_acknowledged_change(own_server):
    """With a request id, a call repeated until it is answered takes effect exactly once."""
    async with AsyncClient(own_server.target, user_id="ada") as client:

        async def create(number):
            while True:
                # Where the restart takes longer than the client's own retries.
                with contextlib.suppress(Unavailable, DeadlineExceeded):
                    job = await client.create_job("render", request_id=f"request-{number}")
                    return job.id

        async with asyncio.TaskGroup() as group:
            creates = [group.create_task(create(number)) for number in range(200)]
            await asyncio.wait(creates, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.to_thread(own_server.restart)
        answered = {create.result() for create in creates}
        stored = [job.id async for job in client.list_jobs(page_size=1000)]
    assert len(answered) == 200
    assert sorted(stored) == sorted(answered)


async def test_a_watch_survives_a_server_that_freezes_and_continues(own_server, monkeypatch):
    monkeypatch.setattr("jobledger.core.reconnecting.MAX_SILENCE", 1.0)
    async with AsyncClient(own_server.target, user_id="ada") as client:
        job = await client.create_job("render")
        news = client.watch(job.id)
        await anext(news)
        own_server.signal(signal.SIGSTOP)
        rest = asyncio.ensure_future(anext(news))
        done, _ = await asyncio.wait({rest}, timeout=1.5)
        assert not done
        own_server.signal(signal.SIGCONT)
        await client.start_job(job.id)
        assert (await rest).job.status == PROCESSING
        await news.aclose()
