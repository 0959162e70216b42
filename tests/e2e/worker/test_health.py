"""A worker's health and metrics, as probes and Prometheus read them."""

import asyncio
import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from jobledger import RetryPolicy
from jobledger.worker import Failed, JobEnd, Partial, Release, RetryLater, Worker
from jobledger.worker import metrics as worker_metrics
from jobledger.worker.metrics import MAX_REASONS, METRICS
from tests.support.ports import free_port
from tests.support.scraping import read_page, scraped


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


async def health(address: str, path: str = "/healthz") -> tuple[int, Any]:
    def get() -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode()
            return error.code, json.loads(text) if text.startswith("{") else text

    return await asyncio.to_thread(get)


def without(facts: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in names}


async def test_health_has_the_slots_the_jobs_and_the_last_message(
    client, running, job_type, address
):
    worker = Worker(client, concurrency=3, health=address)
    started, go_on = asyncio.Event(), asyncio.Event()

    @worker.handler(job_type)
    async def render(job):
        started.set()
        await go_on.wait()
        if job.parameters:
            return Failed("no", "DISK_FULL")
        return None

    assert worker.health.healthy is False
    assert worker.health.silence is None
    running(worker)
    done = await client.create_job(job_type)
    failed = await client.create_job(job_type, {"fail": True})
    await started.wait()
    async with asyncio.timeout(30):
        while (await health(address))[1]["busy"] < 2:
            await asyncio.sleep(0.02)
    status, facts = await health(address)
    assert status == 200
    assert 0 <= facts["silence"] < 60
    assert without(facts, "silence") == {
        "healthy": True,
        "slots": 3,
        "busy": 2,
        "stuck": 0,
        "jobs": {},
    }
    go_on.set()
    for job in (done, failed):
        await client.wait(job.id)
    async with asyncio.timeout(30):
        while worker.health.busy:
            await asyncio.sleep(0.02)
    _, facts = await health(address)
    assert facts["jobs"] == {"completed": {"": 1}, "failed": {"DISK_FULL": 1}}
    assert await health(address, "/nothing") == (404, "there are: /healthz, /metrics\n")


async def test_a_worker_whose_service_is_silent_is_unhealthy(
    client, running, job_type, address, monkeypatch
):
    monkeypatch.setattr(worker_metrics, "SILENT_SECONDS", 0.0)
    worker = Worker(client, health=address)
    worker.handler(job_type)(lambda job: None)
    running(worker)
    async with asyncio.timeout(30):
        while not worker.health.slots:
            await asyncio.sleep(0.02)
    status, facts = await health(address)
    assert (status, facts["healthy"]) == (503, False)


async def test_each_job_ends_with_an_outcome_that_is_counted_and_told(
    client, running, job_type, address
):
    told: list[JobEnd] = []

    def on_end(ended: JobEnd) -> None:
        told.append(ended)
        raise ValueError("a hook that fails ends no worker")

    worker = Worker(client, health=address, on_end=on_end)
    outcomes = {
        "partial": Partial(message="half", reason="HALF"),
        "failed": Failed("no", "DISK_FULL"),
        "completed": None,
    }

    @worker.handler(job_type)
    async def render(job):
        if job.parameters["as"] == "lost":
            await client.transition_job(job.id, "COMPLETED", any_attempt=True)
        if job.parameters["as"] == "retried" and job.attempt == 1:
            raise RetryLater("later")
        if job.parameters["as"] == "released" and not job.parameters.get("again"):
            return Release(after=3600)
        return outcomes.get(job.parameters["as"])

    running(worker)
    policy = RetryPolicy(max_attempts=2, initial_backoff=0.1)
    for name in (*outcomes, "retried", "lost", "released"):
        await client.create_job(job_type, {"as": name}, retry_policy=policy)
        count = len(told)
        async with asyncio.timeout(30):
            while len(told) < count + (2 if name == "retried" else 1):
                await asyncio.sleep(0.02)
    assert [(each.job_type, each.outcome, each.reason) for each in told] == [
        (job_type, *ended)
        for ended in (
            ("partial", "HALF"),
            ("failed", "DISK_FULL"),
            ("completed", ""),
            ("retried", "RETRY_LATER"),
            ("completed", ""),
            ("lost", ""),
            ("released", ""),
        )
    ]
    assert all(each.seconds > 0 for each in told)
    figures = await scraped(address)
    counted = 'jobledger_worker_jobs_total{job_type="%s",outcome="%s",reason="%s"}'
    assert figures[counted % (job_type, "completed", "")] == 2
    assert figures[counted % (job_type, "retried", "RETRY_LATER")] == 1
    assert figures[counted % (job_type, "lost", "")] == 1
    assert figures["jobledger_worker_slots"] == 1
    assert figures["jobledger_worker_slots_busy"] == 0
    assert 0 <= figures["jobledger_worker_silence_seconds"] < 60


async def test_a_worker_has_the_metrics_that_are_declared_and_no_others(
    client, running, job_type, address
):
    """In its own page, and in a registry of the program. So the reference is true."""
    worker = Worker(client, health=address)
    worker.handler(job_type)(lambda job: None)
    running(worker)
    async with asyncio.timeout(30):
        while not worker.health.slots:
            await asyncio.sleep(0.02)
    registry = CollectorRegistry()
    registry.register(worker.metrics)
    for page in (await read_page(address), generate_latest(registry).decode()):
        types = re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE)
        assert {pair for pair in types if not pair[0].startswith("process_")} == {
            (metric.name, metric.kind) for metric in METRICS
        }


async def test_without_prometheus_client_a_worker_has_its_health_alone(
    client, running, job_type, address, monkeypatch
):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    worker = Worker(client, health=address)
    worker.handler(job_type)(lambda job: None)
    running(worker)
    async with asyncio.timeout(30):
        while not worker.health.healthy:
            await asyncio.sleep(0.02)
    assert (await health(address))[0] == 200
    assert await health(address, "/metrics") == (404, "there are: /healthz\n")


def test_reasons_beyond_a_limit_are_counted_together():
    """A handler may fail with any, and each would be a time series."""
    figures = worker_metrics.WorkerFigures(None)
    for number in range(MAX_REASONS + 3):
        figures.end("render", Failed("no", f"REASON_{number}"), 1.0)
    figures.end("render", Failed("no", "REASON_0"), 1.0)
    assert len(figures.ended) == MAX_REASONS + 1
    assert figures.ended["render", "failed", "REASON_0"] == 2
    assert figures.ended["render", "failed", "other"] == 3


def test_an_address_that_is_none_is_refused():
    with pytest.raises(ValueError, match="HOST:PORT"):
        Worker(health="9466")
