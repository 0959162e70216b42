"""What is around all handlers of a worker: a lifespan, slots, and programs without asyncio."""

import asyncio
import contextlib
import threading

import pytest

from jobledger.worker import Worker

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
