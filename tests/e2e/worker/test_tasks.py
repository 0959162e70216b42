"""Tasks from the owner's call to the handler and back, in the types of both."""

import asyncio
import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from jobledger import (
    AsyncClient,
    BlockingJob,
    ClaimedJob,
    Client,
    DeadlineExceeded,
    Failed,
    JobFailed,
    JobStatus,
    Outcome,
    Partial,
    RetryPolicy,
    Task,
    Worker,
)
from tests.support.server_process import ServerProcess
from tests.unit.client import task_handlers


class Kind(enum.Enum):
    DRAFT = "draft"
    FINAL = "final"


@dataclass
class Order:
    id: uuid.UUID
    when: datetime
    kind: Kind = Kind.DRAFT


class Shipment(msgspec.Struct):
    order: Order
    weight: float


ORDER = Order(uuid.UUID(int=5), datetime(2026, 12, 1, 8, 30, tzinfo=UTC), Kind.FINAL)


def compute(job: BlockingJob, params: Shipment) -> Shipment:
    return Shipment(params.order, params.weight * 2)


async def test_a_handler_in_a_process_takes_and_returns_the_types_of_its_task(
    client: AsyncClient, running: Callable[..., Any], job_type: str
) -> None:
    task = Task(job_type, Shipment, result=Shipment)
    worker = Worker(client)
    worker.handler(task, executor="process")(compute)
    job = await client.submit(task, Shipment(ORDER, 1.5))
    running(worker)
    assert await client.result(task, job.id, timeout=40) == Shipment(ORDER, 3.0)


async def test_blocking_code_submits_and_waits_as_async_code_does(
    client: AsyncClient, running: Callable[..., Any], job_type: str, server: ServerProcess
) -> None:
    task = Task(job_type, Order, result=Shipment, retry=RetryPolicy(max_attempts=5))
    worker = Worker(client)

    @worker.handler(task)
    def ship(job: BlockingJob, params: Order) -> Shipment:
        return Shipment(params, float(job.snapshot.priority))

    def owner() -> list[float]:
        with Client(server.target, user_id="ada") as blocking:
            job = blocking.submit(task, ORDER, priority=8)
            assert job.retry_policy.max_attempts == 5
            jobs = blocking.create_jobs([task.new(ORDER), task.new(ORDER, priority=1)])
            weights = [blocking.result(task, each, timeout=20).weight for each in (job, *jobs)]
            done = {each.id: task.result_of(each) for each in blocking.as_completed(jobs)}
            assert [done[each.id].weight for each in jobs] == weights[1:]
            return weights

    running(worker)
    assert await asyncio.to_thread(owner) == [8.0, 5.0, 1.0]


async def test_a_job_without_a_result_raises_an_error_that_has_the_job(
    client: AsyncClient, running: Callable[..., Any], job_type: str
) -> None:
    task = Task(job_type, Order, result=Shipment)
    worker = Worker(client)

    @worker.handler(task)
    async def ship(job: ClaimedJob, params: Order) -> Shipment | Outcome:
        if params.kind is Kind.DRAFT:
            return Failed("a draft", "NOT_FINAL")
        if job.labels:
            return Partial(message="nothing left")
        return Partial(Shipment(params, 1.0), "half of it")

    draft = await client.submit(task, Order(ORDER.id, ORDER.when))
    half = await client.submit(task, ORDER)
    nothing = await client.submit(task, ORDER, labels={"a": "b"})
    with pytest.raises(DeadlineExceeded):
        await client.result(task, draft, timeout=0.01)
    running(worker)
    with pytest.raises(JobFailed, match="NOT_FINAL: a draft") as caught:
        await client.result(task, draft, timeout=20)
    assert (caught.value.job.id, caught.value.job.status) == (draft.id, JobStatus.FAILED)
    assert await client.result(task, half, timeout=20) == Shipment(ORDER, 1.0)
    with pytest.raises(JobFailed, match=r"is PARTIAL: .*nothing left"):
        await client.result(task, nothing, timeout=20)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    cancelled = await client.cancel_job(await client.submit(task, ORDER, schedule_time=tomorrow))
    with pytest.raises(JobFailed) as caught:
        await client.result(task, cancelled, timeout=20)
    assert caught.value.reason == "CANCELLED"


async def test_a_worker_runs_the_handlers_of_a_module(
    client: AsyncClient, running: Callable[..., Any]
) -> None:
    worker = Worker(client)
    worker.include(task_handlers)
    job = await client.submit(task_handlers.render, task_handlers.Render(7))
    swept = await client.submit(task_handlers.clean, task_handlers.Render(1))
    running(worker)
    picture = await client.result(task_handlers.render, job, timeout=20)
    assert picture == task_handlers.Picture("s3://7")
    await client.result(task_handlers.clean, swept, timeout=20)
