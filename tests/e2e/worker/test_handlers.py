"""What is around a handler: middleware, a lifespan, slots, a timeout, a log, typed parameters."""

import asyncio
import contextlib
import logging
import threading
from dataclasses import dataclass, field

import pytest

from jobledger.v1.job_pb2 import JobStatus
from jobledger.worker import (
    BlockingJob,
    ClaimedJob,
    Completed,
    Failed,
    InvalidParameters,
    Worker,
)

COMPLETED = JobStatus.JOB_STATUS_COMPLETED
FAILED = JobStatus.JOB_STATUS_FAILED


# --- middleware -----------------------------------------------------------------------------------


@pytest.mark.parametrize("blocking", [False, True])
async def test_middleware_is_around_each_handler_the_first_outermost(
    service, fake_client, running, blocking
):
    steps = []

    async def outer(job, call_next):
        steps.append(f"outer {job.job_type}")
        outcome = await call_next(job)
        steps.append(outcome)
        return outcome

    async def inner(job, call_next):
        steps.append("inner")
        return await call_next(job)

    worker = Worker(fake_client, middleware=[outer, inner])

    def blocking_render(job):
        steps.append("handler")
        return {"count": 1}

    async def render(job):
        steps.append("handler")
        return {"count": 1}

    worker.handler("render")(blocking_render if blocking else render)
    service.offer()
    running(worker)
    end = await service.called("TransitionJob")
    assert steps == ["outer render", "inner", "handler", Completed({"count": 1})]
    assert end.result["count"] == 1


async def test_middleware_can_replace_an_outcome_and_need_not_call_the_handler(
    service, fake_client, running
):
    async def refuse(job, call_next):
        if job.labels:
            return Failed("not on this machine", "REFUSED")
        try:
            return await call_next(job)
        except ZeroDivisionError:
            return {"infinite": True}

    worker = Worker(fake_client, middleware=[refuse])

    @worker.handler("render")
    async def render(job):
        return {"quotient": 1 / 0}

    service.offer(labels={"gpu": "yes"})
    running(worker)
    assert (await service.called("TransitionJob")).error.reason == "REFUSED"
    service.offer()
    assert (await service.called("TransitionJob", 2)).result["infinite"] is True


async def test_what_middleware_raises_makes_the_job_failed(service, fake_client, running):
    async def broken(job, call_next):
        await call_next(job)
        raise OSError("no disk")

    worker = Worker(fake_client, middleware=[broken])

    @worker.handler("render")
    async def render(job):
        return Completed()

    service.offer()
    running(worker)
    end = await service.called("TransitionJob")
    assert (end.target_status, end.error.reason) == (FAILED, "OS_ERROR")


# --- lifespan -------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True])
async def test_a_lifespan_is_entered_before_the_first_claim_and_left_after_the_last_job(
    service, fake_client, running, plain
):
    steps = []

    @contextlib.contextmanager
    def plain_lifespan():
        steps.append(len(service.requests("Work")))
        yield {"connection": 7}
        steps.append("left")

    @contextlib.asynccontextmanager
    async def lifespan():
        with plain_lifespan() as state:
            yield state

    worker = Worker(fake_client, lifespan=plain_lifespan if plain else lifespan, grace=0)
    started = asyncio.Event()

    @worker.handler("render")
    async def render(job):
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            steps.append(job.state["connection"])

    service.offer()
    run = running(worker)
    await started.wait()
    worker.stop()
    await run
    assert steps == [0, 7, "left"]


async def test_a_lifespan_that_fails_ends_the_run_before_anything_is_claimed(
    service, fake_client, running
):
    @contextlib.asynccontextmanager
    async def lifespan():
        raise OSError("no database")
        yield

    worker = Worker(fake_client, lifespan=lifespan)

    @worker.handler("render")
    async def render(job):
        pass

    with pytest.raises(OSError, match="no database"):
        await running(worker)
    assert service.calls == []


async def test_a_worker_can_be_stopped_while_its_lifespan_is_entered(fake_client, running):
    entered = asyncio.Event()

    @contextlib.asynccontextmanager
    async def lifespan():
        entered.set()
        await asyncio.Event().wait()
        yield

    worker = Worker(fake_client, lifespan=lifespan)

    @worker.handler
    async def render(job):
        pass

    run = running(worker)
    await entered.wait()
    worker.stop()
    async with asyncio.timeout(20):
        await run


# --- slots ----------------------------------------------------------------------------------------


async def test_a_type_with_slots_of_its_own_is_claimed_only_while_one_is_free(
    service, fake_client, running
):
    worker = Worker(fake_client, concurrency=3)
    holding = {"gpu": 0, "cpu": 0}
    most = dict(holding)
    started, go = asyncio.Semaphore(0), asyncio.Event()

    async def work(job):
        holding[job.job_type] += 1
        most[job.job_type] = max(most[job.job_type], holding[job.job_type])
        started.release()
        await go.wait()
        holding[job.job_type] -= 1

    worker.handler("gpu", concurrency=2)(work)
    worker.handler("cpu")(work)
    for _ in range(6):
        service.offer("gpu")
        service.offer("cpu")
    running(worker)
    for _ in range(5):
        await started.acquire()
    assert holding == {"gpu": 2, "cpu": 3}
    go.set()
    await service.called("TransitionJob", 12)
    assert most == {"gpu": 2, "cpu": 3}
    opened = service.requests("Work")
    slots = [(list(request.hello.job_types), request.slots) for request in opened]
    assert sorted(slots) == [(["cpu"], 3), (["gpu"], 2)]


# --- timeout --------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_handler_that_takes_too_long_is_cancelled_and_its_job_failed(
    service, fake_client, running, blocking
):
    worker = Worker(fake_client)

    def blocking_render(job):
        while True:
            job.progress(1)

    async def render(job):
        await asyncio.Event().wait()

    worker.handler("render", timeout=0.2)(blocking_render if blocking else render)
    service.offer()
    running(worker)
    end = await service.called("TransitionJob")
    assert (end.target_status, end.error.reason) == (FAILED, "TIMED_OUT")
    assert end.error.message == "not finished within 0.2 s"


# --- log ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocking", [False, True])
async def test_each_record_of_a_jobs_log_names_the_job(
    service, fake_client, running, caplog, blocking
):
    caplog.set_level(logging.INFO, "jobledger.job")
    worker = Worker(fake_client)

    def blocking_render(job):
        job.log.info("decoded %d %%", 25, extra={"scene": "castle"})

    async def render(job):
        blocking_render(job)

    worker.handler("render")(blocking_render if blocking else render)
    job = service.offer(attempt=3)
    running(worker)
    await service.called("TransitionJob")
    (record,) = [each for each in caplog.records if each.name == "jobledger.job"]
    assert record.getMessage() == f"job {job.id}: decoded 25 %"
    facts = (record.job_id, record.job_type, record.attempt, record.scene)
    assert facts == (job.id, "render", 3, "castle")


# --- typed parameters -----------------------------------------------------------------------------


@dataclass
class RenderParams:
    scene: str
    frames: int = 1
    sizes: list[int] = field(default_factory=list)


@pytest.mark.parametrize("blocking", [False, True])
async def test_parameters_can_be_a_dataclass(service, fake_client, running, blocking):
    worker = Worker(fake_client)
    given = []

    def blocking_render(job: BlockingJob, params: RenderParams):
        given.append(params)

    async def render(job: ClaimedJob, params: RenderParams):
        given.append(params)

    worker.handler("render")(blocking_render if blocking else render)
    service.offer(parameters={"scene": "castle", "sizes": [1, 2], "unknown": True})
    running(worker)
    await service.called("TransitionJob")
    assert given == [RenderParams("castle", 1, [1, 2])]


@pytest.mark.parametrize("blocking", [False, True])
async def test_parameters_that_do_not_fit_make_the_job_failed(
    service, fake_client, running, blocking
):
    worker = Worker(fake_client)

    def blocking_render(job: BlockingJob, params: RenderParams):
        raise AssertionError

    async def render(job: ClaimedJob, params: RenderParams):
        raise AssertionError

    worker.handler("render")(blocking_render if blocking else render)
    service.offer(parameters={"scene": "castle", "sizes": [1, "x"]})
    running(worker)
    end = await service.called("TransitionJob")
    assert (end.target_status, end.error.reason) == (FAILED, "INVALID_PARAMETERS")
    assert end.error.message == "parameters: Expected `int`, got `str` - at `$.sizes[1]`"


async def test_middleware_sees_that_parameters_do_not_fit(service, fake_client, running):
    seen = []

    async def watch(job, call_next):
        try:
            return await call_next(job)
        except InvalidParameters as error:
            seen.append(str(error))
            raise

    worker = Worker(fake_client, middleware=[watch])

    @worker.handler
    async def render(job: ClaimedJob, params: RenderParams):
        raise AssertionError

    service.offer()
    running(worker)
    await service.called("TransitionJob")
    assert seen == ["parameters: Object missing required field `scene`"]


# --- without asyncio ------------------------------------------------------------------------------


def test_a_program_without_asyncio_runs_a_worker(server, job_type):
    from jobledger import Client, JobStatus

    worker = Worker(server.target)
    stopped = threading.Event()

    @worker.handler(job_type)
    def render(job):
        job.progress(50)
        return {"thread": threading.current_thread().name}

    def run():
        worker.run_sync()
        stopped.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with Client(server.target, user_id="ada") as client:
            done = client.wait(client.create_job(job_type).id, timeout=20)
    finally:
        worker.stop(now=True)
        thread.join(20)
    assert stopped.is_set()
    assert done.status is JobStatus.COMPLETED
    assert done.result == {"thread": f"jobledger-{done.id}"}


async def test_run_sync_in_an_event_loop_is_refused(fake_client):
    worker = Worker(fake_client)
    with pytest.raises(RuntimeError, match=r"^run_sync: .* await run\(\)"):
        worker.run_sync()


async def test_a_second_client_for_a_worker_is_refused(fake_client):
    worker = Worker(fake_client)

    @worker.handler
    async def render(job):
        pass

    with pytest.raises(ValueError, match=r"^client: this worker was made with one"):
        await worker.run(client=fake_client)
    assert worker.has_client
    assert not Worker().has_client


def test_an_error_of_run_sync_has_no_other_error_before_it():
    with pytest.raises(ValueError, match=r"^handler: ") as raised:
        Worker("127.0.0.1:1").run_sync()
    assert raised.value.__context__ is None
