"""Which jobs a worker claims, and what becomes of them when it stops."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import weakref

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from jobledger import AccessDenied, AsyncClient, Client, Completed, JobledgerError, JobStatus
from jobledger.v1 import worker_service_pb2 as pb
from jobledger.worker import Worker
from jobledger_world.world import World
from tests.e2e.worker.rules import refuse, refuse_with


async def test_a_worker_sends_its_job_types_and_free_slots(service, fake_client, running):
    worker = Worker(fake_client, concurrency=3, lease=7)
    for job_type in ("a", "b"):

        @worker.handler(job_type)
        async def handle(job):
            pass

    running(worker)
    first = await service.called("Work")
    assert first.slots == 3
    assert first.hello == pb.WorkHello(
        worker_id=fake_client.worker_id,
        job_types=["a", "b"],
        lease_duration=Duration(seconds=7),
    )


async def test_a_worker_goes_on_after_an_outage_which_it_logs_once(
    service, fake_client, running, caplog
):
    worker = Worker(fake_client)
    service.rules["Work"] = refuse(grpc.StatusCode.UNAVAILABLE, 3)

    @worker.handler("render")
    async def render(job):
        pass

    service.offer()
    running(worker)
    await service.called("TransitionJob")
    assert len(service.requests("Work")) == 4
    begin, end = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert begin == "the Work stream ended (scripted); opening another one"
    assert end == "the service answers again"


@pytest.mark.parametrize(
    ("rule", "error", "words"),
    [
        (refuse_with("ACCESS_DENIED"), AccessDenied, "scripted"),
        (refuse(grpc.StatusCode.PERMISSION_DENIED), AccessDenied, "scripted"),
        (refuse(grpc.StatusCode.UNIMPLEMENTED), JobledgerError, "no Work stream: .* proxy"),
    ],
)
async def test_a_service_that_refuses_the_worker_ends_it(
    service, start_waiting, caplog, rule, error, words
):
    waiting = start_waiting(concurrency=2)
    service.offer()
    await waiting.started.acquire()
    service.rules["Work"] = rule
    service.streams[0].end(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(error, match=words):
        await waiting.run
    assert waiting.stopped
    # The release of its job fails at once.
    assert "could not be finished" in caplog.text


async def test_a_job_that_does_not_finish_within_the_grace_is_released(
    service, fake_client, running
):
    worker = Worker(fake_client, grace=0.1)
    started = asyncio.Event()
    cleaned = []

    @worker.handler("render")
    async def render(job):
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(service.requests("ReleaseJob"))

    job = service.offer(attempt=3)
    run = running(worker)
    await started.wait()
    worker.stop()
    await run
    assert service.requests("ReleaseJob") == [
        pb.ReleaseJobRequest(job_id=job.id, attempt=3, release={})
    ]
    assert service.requests("TransitionJob") == []
    # Released only when its handler has stopped.
    assert cleaned == [[]]


def test_leases_are_renewed_during_the_grace():
    started = asyncio.Event()

    def make(client):
        worker = Worker(client, lease=5, grace=120)

        @worker.handler("render")
        async def render(job):
            started.set()
            await asyncio.sleep(60)
            return Completed()

        return worker

    async def stop(world):
        client = world.client("ada")
        (process,) = world.worker(make)
        job = await client.create_job("render")
        await started.wait()
        await process.stop()
        done = await client.get_job(job.id)
        # With its only attempt, which a lost lease would have used up.
        assert (done.status, done.attempt) == (JobStatus.COMPLETED, 1)

    World(1).run(stop)  # its time is simulated: no other process can make a renewal late


async def test_a_program_whose_signal_handlers_are_not_of_python_can_run_a_worker(
    service, fake_client, monkeypatch
):
    # So it is where a program in C runs Python.
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    worker = Worker(fake_client)

    @worker.handler("render")
    async def render(job):
        worker.stop()

    service.offer()
    await worker.run(signals=True)
    assert len(service.requests("TransitionJob")) == 1


async def test_cancelling_run_releases_its_jobs_too(service, start_waiting):
    waiting = start_waiting(concurrency=2, grace=30)
    job = service.offer()
    await waiting.started.acquire()
    waiting.run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting.run
    assert [request.job_id for request in service.requests("ReleaseJob")] == [job.id]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_worker_and_a_second_one_ends_the_grace(
    service, fake_client, number, caplog
):
    caplog.set_level("INFO", "jobledger.worker")
    worker = Worker(fake_client, grace=60)
    started = asyncio.Event()
    before = signal.getsignal(number)

    @worker.handler("render")
    async def render(job):
        started.set()
        await asyncio.Event().wait()

    job = service.offer()
    run = asyncio.create_task(worker.run(signals=True))
    await started.wait()
    os.kill(os.getpid(), number)
    while "stopping; jobs running" not in caplog.text:
        await asyncio.sleep(0.001)
    assert service.requests("ReleaseJob") == []
    os.kill(os.getpid(), number)
    async with asyncio.timeout(20):
        await run
    assert [request.job_id for request in service.requests("ReleaseJob")] == [job.id]
    assert signal.getsignal(number) == before


WITHOUT_SIGNAL_HANDLERS = """
import asyncio
import sys

from jobledger import Worker


class Loop(asyncio.SelectorEventLoop):
    def add_signal_handler(self, *_):
        raise NotImplementedError

    def remove_signal_handler(self, *_):
        raise NotImplementedError


worker = Worker(sys.argv[1])
worker.handler("render")(lambda job: None)
with asyncio.Runner(loop_factory=Loop) as runner:
    runner.run(worker.run(signals=True))
"""


async def test_a_signal_stops_a_worker_whose_loop_has_no_signal_handlers_as_on_windows(service):
    target = f"127.0.0.1:{service.port}"
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WITHOUT_SIGNAL_HANDLERS, target
    )
    await service.called("Work")
    program.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        assert await program.wait() == 0


async def test_a_signal_stops_all_workers_of_a_program(service, fake_client):
    before = signal.getsignal(signal.SIGTERM)
    workers = [Worker(fake_client, grace=60) for _ in range(2)]
    started = asyncio.Semaphore(0)

    async def wait(job):
        started.release()
        await asyncio.Event().wait()

    for number, worker in enumerate(workers):
        worker.handler(f"render-{number}")(wait)
        service.offer(f"render-{number}")
    runs = asyncio.gather(*(worker.run(signals=True) for worker in workers))
    for _ in workers:
        await started.acquire()
    async with asyncio.timeout(20):
        while not runs.done():
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.01)
    assert len(service.requests("ReleaseJob")) == 2
    assert signal.getsignal(signal.SIGTERM) == before


async def test_a_worker_leaves_nothing_behind(service, fake_client, running, caplog):
    before = asyncio.all_tasks()
    worker = Worker(fake_client, concurrency=5, grace=0.05)

    handled = []

    @worker.handler("render")
    async def render(job):
        handled.append(weakref.ref(job))
        await job.progress(1)
        if job.parameters:
            await asyncio.Event().wait()

    for number in range(20):
        service.offer(parameters={"hang": True} if number % 5 == 0 else None)
    run = running(worker)
    await service.called("TransitionJob", 10)
    worker.stop()
    await run
    left = asyncio.all_tasks() - before - {run}
    # What grpc itself and the fake service are about does not belong to the worker.
    assert [task for task in left if "jobledger" in repr(task.get_coro())] == []
    gc.collect()
    assert [job() for job in handled] == [None] * len(handled)
    assert "never retrieved" not in caplog.text


async def done(job):
    pass


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("client", 7),
        ("client", Client()),
        ("concurrency", 0),
        ("concurrency", True),
        ("concurrency", 1001),
        ("lease", "60s"),
        ("grace", None),
        ("grace", -1),
        ("worker_id", 7),
        ("middleware", [lambda job, call_next: None]),
        ("lifespan", contextlib.nullcontext()),
    ],
)
def test_a_wrong_argument_is_refused_at_once_by_its_name(argument, value):
    with pytest.raises((TypeError, ValueError), match=f"^{argument}: "):
        Worker(**{"client": AsyncClient(), argument: value})


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("job_type", 7),
        ("job_type", ""),
        ("concurrency", 0),
        ("timeout", -1),
        ("on_cancel", "stop"),
        ("executor", "fork"),
        ("executor", "process"),  # of an async function
    ],
)
def test_a_wrong_argument_of_a_handler_is_refused_at_once_by_its_name(argument, value):
    with pytest.raises((TypeError, ValueError), match=f"^{argument}: "):
        Worker().handler(**{"job_type": "render", argument: value})(done)


def test_a_function_that_cannot_take_a_job_is_refused_at_once():
    with pytest.raises(TypeError, match="takes no argument"):
        Worker().handler("render")(lambda: None)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="not a function"):
        Worker().handler("render")(7)  # type: ignore[type-var]
    with pytest.raises(TypeError, match=r"^job_type: "):
        Worker().handler(lambda job: None)


def test_a_type_of_job_has_one_handler():
    worker = Worker()
    worker.handler(done)
    with pytest.raises(ValueError, match=r"^job_type: 'done' has a handler"):
        worker.handler("done")(done)


async def test_a_worker_without_handlers_does_not_run():
    with pytest.raises(ValueError, match=r"^handler: "):
        await Worker().run()


async def test_a_worker_runs_once(service, fake_client, running):
    worker = Worker(fake_client)
    worker.handler(done)
    run = running(worker)
    await service.called("Work")
    with pytest.raises(RuntimeError, match=r"^run: "):
        await worker.run()
    with pytest.raises(RuntimeError, match=r"^handler: "):
        worker.handler("too late")(done)
    worker.stop()
    await run
    with pytest.raises(RuntimeError, match=r"^run: "):
        await worker.run()


async def test_a_handlers_job_type_defaults_to_its_functions_name(service, fake_client, running):
    worker = Worker(fake_client)

    @worker.handler
    async def render(job):
        pass

    @worker.handler()
    def encode(job):
        pass

    service.offer("render")
    service.offer("encode")
    running(worker)
    await service.called("TransitionJob", 2)
    assert list(service.requests("Work")[0].hello.job_types) == ["render", "encode"]


async def test_a_lease_that_the_service_refuses_stops_the_worker(client, running, job_type):
    worker = Worker(client, lease=1)

    @worker.handler(job_type)
    async def render(job):
        pass

    with pytest.raises(JobledgerError, match="lease_duration"):
        await running(worker)
