"""Threads that ignore their timeout: they keep their slots, and the worker says so."""

import asyncio
import json
import threading
import urllib.error
import urllib.request

import pytest

from jobledger import AsyncClient, Worker
from jobledger.worker.handlers.job_run import JobRun
from tests.support.ports import free_port
from tests.support.scraping import scraped

SLOTS = 2


class Stubborn:
    """A worker whose handlers ignore everything until they are let go."""

    def __init__(self, client: AsyncClient, **options: object) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.worker = Worker(client, concurrency=SLOTS, health=self.address)
        self.go_on = [threading.Event() for _ in range(2 * SLOTS)]
        self.threads: list[threading.Thread] = []
        self.most = 0
        """Threads at once."""
        self.worker.handler("render", **options)(self.render)

    def render(self, job):
        number = len(self.threads)
        self.threads.append(threading.current_thread())
        self.most = max(self.most, sum(thread.is_alive() for thread in self.threads))
        self.go_on[number].wait(60)

    async def health(self):
        def get():
            try:
                with urllib.request.urlopen(f"http://{self.address}/healthz") as answer:
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, json.load(error)

        return await asyncio.to_thread(get)


@pytest.fixture(autouse=True)
def _short_clean_up(monkeypatch):
    defaults: dict[str, object] = JobRun.__init__.__kwdefaults__ or {}
    assert "clean_up" in defaults
    monkeypatch.setitem(defaults, "clean_up", 0.05)


@pytest.fixture
async def stubborn(service, fake_client, running):
    stubborn = Stubborn(fake_client, timeout=0.05)
    running(stubborn.worker)
    yield stubborn
    for each in stubborn.go_on:
        each.set()


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_threads_that_ignore_their_timeout_are_never_more_than_the_slots(service, stubborn):
    for _ in range(2 * SLOTS):
        service.offer()
    await service.called("TransitionJob", SLOTS)
    finishes = [each.finish for each in service.requests("TransitionJob")]
    assert [finish.error.reason for finish in finishes] == ["TIMED_OUT"] * SLOTS
    await service.until(lambda: service.messages[-1].slots == 0)
    # One that returns lets one more job run.
    stubborn.go_on[0].set()
    await service.called("TransitionJob", SLOTS + 1)
    assert (len(stubborn.threads), stubborn.most) == (SLOTS + 1, SLOTS)
    assert service.requests("ReleaseJob") == []


async def test_a_job_that_is_pushed_to_a_worker_whose_slots_are_all_kept_is_released(
    service, stubborn
):
    for _ in range(SLOTS):
        service.offer()
    await service.called("TransitionJob", SLOTS)
    late = service.offer()
    service.take(["render"], 1)
    await service.streams[0].push(late)
    assert (await service.called("ReleaseJob")).job_id == late.id
    assert len(stubborn.threads) == SLOTS


async def test_a_worker_whose_slots_are_all_kept_says_so_and_is_unhealthy_until_one_is_free(
    service, stubborn, caplog
):
    caplog.set_level("INFO", "jobledger.worker")
    service.offer()
    await until(lambda: stubborn.worker.health.stuck == 1)
    status, facts = await stubborn.health()
    assert (status, facts["healthy"], facts["stuck"], facts["slots"]) == (200, True, 1, 2)
    assert "its thread keeps its slot until it returns; slots: 2, kept in this way: 1" in (
        caplog.text
    )
    assert "no more jobs are taken" not in caplog.text
    service.offer()
    await until(lambda: stubborn.worker.health.stuck == SLOTS)
    status, facts = await stubborn.health()
    assert (status, facts["healthy"], facts["stuck"]) == (503, False, 2)
    assert (await scraped(stubborn.address))["jobledger_worker_slots_stuck"] == 2
    assert caplog.text.count("no more jobs are taken, of the types render") == 1
    stubborn.go_on[0].set()
    await until(lambda: stubborn.worker.health.healthy)
    assert stubborn.worker.health.stuck == 1
    assert "its thread has returned, and its slot is free" in caplog.text
    assert "jobs of the types render are taken again" in caplog.text


async def test_a_handler_that_ignores_the_loss_of_its_job_makes_the_worker_unhealthy_too(
    service, fake_client, running
):
    stubborn = Stubborn(fake_client)
    running(stubborn.worker)
    jobs = [service.offer() for _ in range(SLOTS)]
    await until(lambda: len(stubborn.threads) == SLOTS)
    assert stubborn.worker.health.healthy
    for job in jobs:
        await service.streams[0].signal(job_id=job.id, attempt=1, lease_lost={})
    await until(lambda: stubborn.worker.health.stuck == SLOTS)
    assert not stubborn.worker.health.healthy
    for each in stubborn.go_on:
        each.set()
    await until(lambda: stubborn.worker.health.healthy)


async def test_a_thread_that_is_left_when_the_worker_stops_does_not_hold_it_up(
    service, fake_client, running, caplog
):
    stubborn = Stubborn(fake_client)
    job = service.offer()
    run = running(stubborn.worker)
    await until(lambda: stubborn.threads)
    stubborn.worker.stop(now=True)
    await run
    assert [each.job_id for each in service.requests("ReleaseJob")] == [job.id]
    assert "does not stop; its thread is left behind" in caplog.text
    stubborn.go_on[0].set()


async def test_middleware_that_calls_a_handler_again_starts_no_second_thread(
    service, fake_client, running
):
    async def twice(job, call_next):
        try:
            return await call_next(job)
        except asyncio.CancelledError:
            return await call_next(job)

    worker, go_on = Worker(fake_client, middleware=[twice]), threading.Event()
    threads = []

    @worker.handler("render", timeout=0.05)
    def render(job):
        threads.append(job.id)
        go_on.wait(60)

    service.offer()
    running(worker)
    await service.called("TransitionJob")
    go_on.set()
    assert len(threads) == 1
