"""`executor="process"`: a handler that holds the GIL, in a process that can be killed."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from google.protobuf import json_format

from jobledger import Completed, Job, JobStatus, Release
from jobledger.worker import Worker
from jobledger.worker.handlers import processes
from jobledger.worker.handlers.handler import make_handler
from jobledger.worker.handlers.job_run import JobRun
from jobledger.worker.job import Stop
from tests.e2e.worker import process_handlers
from tests.e2e.worker.rules import asks_to_cancel, refuse
from tests.support.pages import ROOT
from tests.support.recorded_updates import RecordedUpdates

COMPLETED = JobStatus.COMPLETED.to_proto()
PARTIAL = JobStatus.PARTIAL.to_proto()
FAILED = JobStatus.FAILED.to_proto()


@pytest.fixture(autouse=True)
def forks(monkeypatch):
    """Fork what else is spawned: each spawn imports for a third of a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["jobledger.worker.handlers.process_main", "tests.e2e.worker.process_handlers"]
    )
    monkeypatch.setattr("jobledger.worker.handlers.processes._context", context)


async def end_of(service, client, running, function, parameters=None):
    worker = Worker(client)
    worker.handler("render", executor="process")(function)
    service.offer(parameters=parameters)
    running(worker)
    return await service.called("TransitionJob")


async def gone(pid):
    async with asyncio.timeout(20):
        with contextlib.suppress(psutil.NoSuchProcess):
            while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(0.01)
    return True


async def test_a_handler_in_a_process_reports_links_and_returns(service, fake_client, running):
    end = await end_of(service, fake_client, running, process_handlers.whole, {"scene": "castle"})
    assert end.target_status == COMPLETED
    assert end.finish.result["pid"] not in (0, os.getpid())
    assert (end.finish.result["asset"], end.finish.result["attempt"]) == (
        "https://example.com/a.png",
        1,
    )
    (asset,) = service.requests("CreateAsset")
    link = asset.asset.asset
    assert (asset.attempt, link.file_size, link.name, link.etag) == (1, 7, "a", "e")
    reports = [each.progress for each in service.requests("UpdateProgress")]
    assert (50, "half of castle") in [(each.progress, each.progress_message) for each in reports]


async def test_a_handler_in_a_process_that_only_iterates_is_stopped_without_being_killed(
    service, fake_client, running
):
    worker = Worker(fake_client)
    worker.handler("render", executor="process", timeout=0.5)(process_handlers.tracks)
    running(worker)
    ends = []
    for number, parameters in enumerate((None, {"for ever": True}, None), 1):
        service.offer(parameters=parameters)
        ends.append(await service.called("TransitionJob", number))
    assert [end.finish.error.reason for end in ends] == ["", "TIMED_OUT", ""]
    assert ends[0].finish.result["pid"] == ends[2].finish.result["pid"]


async def test_a_result_need_not_be_picklable(service, fake_client, running):
    end = await end_of(service, fake_client, running, process_handlers.returns_its_own_types)
    assert end.target_status == COMPLETED
    assert json_format.MessageToDict(end.finish.result) == {"count": 7, "nested": {"a": [1]}}


async def test_a_handler_in_a_process_can_terminate_a_program_that_it_has_started(
    service, fake_client, running
):
    end = await end_of(service, fake_client, running, process_handlers.terminates_a_program)
    assert (end.target_status, end.finish.result["code"]) == (COMPLETED, -signal.SIGTERM)


async def test_a_process_runs_one_job_after_the_other_and_exits_with_the_worker(
    service, fake_client, running
):
    worker = Worker(fake_client)
    worker.handler("render", executor="process")(process_handlers.pid)
    for _ in range(3):
        service.offer()
    run = running(worker)
    pids = {
        (await service.called("TransitionJob", each)).finish.result["pid"] for each in (1, 2, 3)
    }
    assert len(pids) == 1
    worker.stop()
    await run
    assert await gone(int(pids.pop()))


RAISED: dict[Any, tuple[str, str]] = {
    process_handlers.raises: ("FILE_NOT_FOUND_ERROR", "no scene 'castle'"),
    process_handlers.raises_unpicklable: ("UNPICKLABLE", "castle: frame 7"),
    process_handlers.raises_eof: ("EOF_ERROR", "the scene is cut off"),
    process_handlers.returns_nonsense: ("TYPE_ERROR", "the handler returned list"),
    process_handlers.needs_state: ("RUNTIME_ERROR", "lifespan"),
}


async def test_an_exception_in_a_process_fails_the_job_and_is_logged_by_the_worker(
    service, fake_client, running, caplog
):
    worker = Worker(fake_client)
    for function in RAISED:
        worker.handler(function.__name__, executor="process")(function)
    running(worker)
    for number, (function, (reason, words)) in enumerate(RAISED.items(), 1):
        caplog.clear()
        service.offer(job_type=function.__name__)
        end = await service.called("TransitionJob", number)
        assert (end.target_status, end.finish.error.reason) == (FAILED, reason)
        assert words in end.finish.error.message
        assert "Traceback" not in end.finish.error.message
        assert "process_handlers.py" in caplog.text or reason == "TYPE_ERROR"


async def test_an_exception_that_cannot_be_pickled_reaches_middleware_and_retry_on(
    service, fake_client, running
):
    caught = []

    async def watch(job, call_next):
        try:
            return await call_next(job)
        except process_handlers.Unpicklable as error:
            caught.append(str(error))
            raise

    worker = Worker(fake_client, middleware=[watch])
    worker.handler("render", executor="process", retry_on=process_handlers.Unpicklable)(
        process_handlers.raises_unpicklable
    )
    service.offer()
    running(worker)
    end = await service.called("TransitionJob")
    assert (end.finish.error.reason, end.finish.retryable) == ("UNPICKLABLE", True)
    assert caught == ["castle: frame 7"]


UNGUARDED = """
import sys

from jobledger import Worker

worker = Worker(sys.argv[1])


@worker.handler("render", executor="process")
def render(job):
    return {}


"""


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("worker.run_sync()", "this process was started for a handler"),
        ("import os; os._exit(3) if __name__ != '__main__' else worker.run_sync()", "with 3"),
    ],
)
async def test_a_program_that_runs_its_worker_when_imported_says_what_to_write(
    service, tmp_path, end, words
):
    program = tmp_path / "program.py"
    program.write_text(UNGUARDED + end)
    service.offer()
    ran = await asyncio.create_subprocess_exec(
        sys.executable, program, f"127.0.0.1:{service.port}", stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        _, errors = await ran.communicate()
    assert ran.returncode == 1
    assert words in errors.decode()
    assert 'below if __name__ == "__main__":' in errors.decode().splitlines()[-1]
    # Nothing was claimed, so no job has failed.
    assert service.requests("Work") == []


async def test_a_process_that_is_never_ready_ends_the_worker(fake_client, monkeypatch):
    monkeypatch.setattr(processes, "START", 0.0)
    worker = Worker(fake_client)
    worker.handler("render", executor="process")(process_handlers.pid)
    with pytest.raises(RuntimeError, match="not ready within 0 s before its first job"):
        await worker.run(signals=False)


async def test_a_refusal_of_the_service_is_raised_in_the_process(service, fake_client, running):
    import grpc

    service.rules["CreateAsset"] = refuse(grpc.StatusCode.INVALID_ARGUMENT)
    end = await end_of(service, fake_client, running, process_handlers.refused_asset)
    assert (end.target_status, end.finish.error.reason) == (FAILED, "JOBLEDGER_ERROR")


@pytest.mark.parametrize(
    ("function", "words"),
    [(process_handlers.exits, "exited with 3"), (process_handlers.killed, "was ended by SIGKILL")],
)
async def test_a_process_that_dies_fails_its_own_job_only(
    service, fake_client, running, function, words
):
    worker = Worker(fake_client, concurrency=2)
    worker.handler("bad", executor="process")(function)
    worker.handler("good", executor="process")(process_handlers.pid)
    service.offer("bad", parameters={"code": 3})
    service.offer("good")
    running(worker)
    ends = [await service.called("TransitionJob", each) for each in (1, 2)]
    bad, good = sorted(ends, key=lambda end: end.target_status, reverse=True)
    assert (bad.target_status, bad.finish.error.reason) == (FAILED, "PROCESS_DIED")
    assert bad.finish.retryable
    assert bad.finish.error.message == f"the handler's process {words}"
    assert good.target_status == COMPLETED
    service.offer("bad", parameters={"code": 3})
    assert (await service.called("TransitionJob", 3)).finish.error.reason == "PROCESS_DIED"


async def test_a_process_killed_while_idle_fails_no_job(service, fake_client, running):
    worker = Worker(fake_client)
    worker.handler("render", executor="process")(process_handlers.pid)
    service.offer()
    running(worker)
    first = int((await service.called("TransitionJob")).finish.result["pid"])
    os.kill(first, signal.SIGKILL)
    assert await gone(first)
    service.offer()
    end = await service.called("TransitionJob", 2)
    assert (end.target_status, int(end.finish.result["pid"]) != first) == (COMPLETED, True)


async def test_leases_are_renewed_while_a_handler_holds_the_gil(
    service, fake_client, running, tmp_path
):
    file = tmp_path / "go"
    worker = Worker(fake_client, lease=3)
    worker.handler("render", executor="process")(process_handlers.computes)
    service.offer(parameters={"file": str(file)})
    running(worker)
    await service.called("UpdateProgress", 3)
    file.touch()
    assert (await service.called("TransitionJob")).target_status == COMPLETED


async def test_a_cancellation_is_raised_in_the_process(service, fake_client, running):
    service.rules["UpdateProgress"] = asks_to_cancel
    end = await end_of(service, fake_client, running, process_handlers.until_cancelled)
    last = service.requests("UpdateProgress")[-1].progress
    assert (last.progress, last.progress_message) == (10, "cleaning up")
    assert (end.target_status, end.finish.result["reason"]) == (PARTIAL, "not needed")


@pytest.mark.parametrize("why", ["shutdown", "lost"])
async def test_a_process_that_does_not_stop_is_killed(tmp_path, why):
    file = tmp_path / "pid"
    job = Job(
        id="j", job_type="render", status=JobStatus.PROCESSING, parameters={"file": str(file)}
    )
    handler = make_handler(process_handlers.deaf, executor="process")
    run, updates = JobRun(job, handler, clean_up=0.1), RecordedUpdates()
    running = asyncio.create_task(run.run(updates))
    pid = int(await text_of(file))
    if why == "shutdown":
        run.shut_down()
    else:
        run.lose(Stop.LOST, "scripted")
    await running
    assert await gone(pid)
    assert updates.outcome == {"shutdown": Release(), "lost": None}[why]


@pytest.mark.parametrize("end", ["returns", "is killed"])
async def test_the_end_of_a_lost_attempt_leaves_the_next_one_alone(tmp_path, end):
    handler = make_handler(process_handlers.computes, executor="process")
    started = [tmp_path / f"started {attempt}" for attempt in (1, 2)]
    go = [tmp_path / f"go {attempt}" for attempt in (1, 2)]
    runs = []
    for attempt, files in enumerate(zip(started, go, strict=True), 1):
        job = Job(
            id="j",
            job_type="render",
            status=JobStatus.PROCESSING,
            attempt=attempt,
            parameters={"started": str(files[0]), "file": str(files[1])},
        )
        run, updates = JobRun(job, handler, clean_up=0.1), RecordedUpdates()
        runs.append((run, updates, asyncio.create_task(run.run(updates))))
        await text_of(files[0])
    (first, _, first_running), (_, second, second_running) = runs
    if end == "returns":
        go[0].touch()
    else:
        first.lose(Stop.LOST, "scripted")
    await first_running
    go[1].touch()
    await second_running
    await asyncio.to_thread(handler.processes.close)
    assert isinstance(second.outcome, Completed)


async def test_log_records_of_a_process_reach_the_workers_log(
    service, fake_client, running, caplog
):
    await end_of(service, fake_client, running, process_handlers.logs)
    records = {each.name: each for each in caplog.records}
    job_id = service.requests("TransitionJob")[0].job_id
    assert records["jobledger.job"].getMessage() == f"job {job_id}: from a process"
    assert records["jobledger.job"].job_id == job_id
    assert records["elsewhere"].getMessage() == "too"


async def test_a_function_that_processes_cannot_import_is_refused_at_once(fake_client):
    worker = Worker(fake_client)

    @worker.handler("render", executor="process")
    def render(job):
        pass

    with pytest.raises(TypeError, match=r"^executor: a process cannot import"):
        await worker.run()


PROGRAM = """
from jobledger import Worker
from tests.e2e.worker import process_handlers

worker = Worker({target!r}, lease=5, grace=60)
worker.handler({job_type!r}, executor="process")(process_handlers.{function})

if __name__ == "__main__":
    worker.run_sync()
"""


@contextlib.contextmanager
def worker_process(server, job_type, folder, function):
    program = folder / "program.py"
    program.write_text(
        PROGRAM.format(target=server.target, job_type=job_type, function=function.__name__)
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, program]
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def text_of(file):
    async with asyncio.timeout(20):
        while not (file.exists() and file.read_text()):
            await asyncio.sleep(0.01)
    return file.read_text()


async def test_processes_exit_when_their_worker_is_killed(server, client, job_type, tmp_path):
    file = tmp_path / "pid"
    with worker_process(server, job_type, tmp_path, process_handlers.deaf):
        await client.create_job(job_type, {"file": str(file)})
        pid = int(await text_of(file))
    assert await gone(pid)


async def test_a_signal_to_all_processes_leaves_them_the_grace(server, client, job_type, tmp_path):
    started, go = tmp_path / "started", tmp_path / "go"
    with worker_process(server, job_type, tmp_path, process_handlers.computes) as process:
        parameters = {"file": str(go), "started": str(started)}
        job = await client.create_job(job_type, parameters)
        await text_of(started)
        os.killpg(process.pid, signal.SIGINT)
        go.touch()
        assert await asyncio.to_thread(process.wait, 20) == 0
    assert (await client.get_job(job.id)).status is JobStatus.COMPLETED


async def test_a_thread_that_a_handler_leaves_behind_does_not_report_on_the_next_job(
    service, fake_client, running
):
    worker = Worker(fake_client)
    worker.handler("render", executor="process")(process_handlers.leaves_a_thread)
    jobs = [service.offer() for _ in range(3)]
    running(worker)
    ends = [await service.called("TransitionJob", each) for each in (1, 2, 3)]
    assert [end.finish.result["stopped"] for end in ends] == [0, 1, 2]
    assert {end.job_id for end in ends} == {job.id for job in jobs}
    for request in [*service.requests("UpdateProgress"), *ends]:
        assert request.progress.progress_message in ("", request.job_id)
