"""`jobledger worker run MODULE:WORKER`: what a worker of a module needs around it."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from jobledger import JobStatus
from tests.support import forked

TASKS = """
from jobledger import BlockingJob, Worker

worker = Worker(lease=5)


@worker.handler({job_type!r})
def render(job: BlockingJob) -> dict[str, object]:
    return {{"answer": {answer}}}


def make_worker() -> Worker:
    return worker
"""


@pytest.fixture
def start(server, tmp_path):
    """Start the command in a folder of its own; returns the process."""
    processes = []

    def start(*arguments):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("JOBLEDGER_")}
        run = ("--server", server.target, "worker", "run", *arguments)
        processes.append(forked.Piped("jobledger", run, env=environment, cwd=tmp_path))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


async def answer_of(client, job_type):
    job = await client.create_job(job_type)
    done = await client.wait(job.id, timeout=20)
    assert done.status is JobStatus.COMPLETED
    return done.result["answer"]


async def test_a_worker_of_a_module_runs_with_the_commands_connection(
    start, client, job_type, tmp_path
):
    (tmp_path / "tasks.py").write_text(TASKS.format(job_type=job_type, answer=42))
    process = start("tasks:make_worker")
    assert await answer_of(client, job_type) == 42
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 20) == 0
    assert f"started; job types: {job_type}" in process.stderr.read()


async def test_handlers_of_worker_run_can_run_in_processes(start, client, job_type, tmp_path):
    in_process = TASKS.replace("({job_type!r})", '({job_type!r}, executor="process")')
    answer = "multiprocessing.parent_process() is not None"
    source = in_process.format(job_type=job_type, answer=answer)
    (tmp_path / "tasks.py").write_text(f"import multiprocessing\n{source}")
    process = start("tasks:worker", "--reload")
    assert await answer_of(client, job_type) is True
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 20) == 0


@pytest.mark.parametrize(
    ("target", "source", "words"),
    [
        ("tasks", "", "'tasks' is not MODULE:WORKER"),
        ("tasks:worker", "worker = 7", "tasks has no Worker 'worker'"),
        ("tasks:worker", "import nothing", "No module named 'nothing'"),
        ("tasks:worker", "1 / 0", "tasks:worker cannot be loaded: division by zero"),
    ],
)
def test_a_target_that_cannot_be_run_is_a_usage_error(tmp_path, target, source, words):
    (tmp_path / "tasks.py").write_text(source)
    run = forked.run("jobledger", "worker", "run", target, env={}, cwd=tmp_path)
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1] == f"error: {words}"
    # An error of the module itself is shown with its line.
    assert ("tasks.py" in run.stderr) == ("1 / 0" in source or source == "import nothing")


def test_an_error_of_a_lifespan_is_shown_with_its_line(tmp_path):
    source = TASKS.format(job_type="render", answer=True).replace(
        "lease=5", "lifespan=open_database"
    )
    (tmp_path / "tasks.py").write_text(f"def open_database(): int('')\n{source}")
    run = forked.run("jobledger", "worker", "run", "tasks:worker", env={}, cwd=tmp_path)
    assert "tasks.py" in run.stderr
    assert run.stderr.splitlines()[-1].startswith("error: invalid literal for int()")


async def test_reload_starts_the_worker_again_when_a_file_changes(
    start, client, job_type, tmp_path
):
    file = tmp_path / "tasks.py"
    file.write_text(TASKS.format(job_type=job_type, answer=1))
    process = start("tasks:worker", "--reload")
    assert await answer_of(client, job_type) == 1
    file.write_text("syntax error")
    await asyncio.to_thread(read_until, process, "SyntaxError")
    file.write_text(TASKS.format(job_type=job_type, answer=2))
    async with asyncio.timeout(20):
        while await answer_of(client, job_type) != 2:
            pass
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 20) == 0


def read_until(process, words):
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"the command has exited without {words}")


RUN_SYNC = """
import logging, sys
from jobledger import Worker
{set_up}
worker = Worker({target!r}, concurrency=3)
@worker.handler({job_type!r})
def handle(job):
    worker.stop()
    return {{"answer": 42}}
worker.run_sync()
"""
QUIET = "logging.getLogger().addHandler(logging.NullHandler())"


@pytest.mark.parametrize("set_up", ["", QUIET])
async def test_run_sync_logs_what_the_worker_does_unless_the_program_set_up_logging(
    server, client, job_type, set_up
):
    program = RUN_SYNC.format(target=server.target, job_type=job_type, set_up=set_up)
    job = await client.create_job(job_type)
    run = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    if set_up:
        assert run.stderr == ""
        return
    ready = f"is ready; job types: {job_type}; slots: 3; server: {server.target}"
    got = f"job {job.id} ({job_type}, attempt 1): claimed"
    became = f"job {job.id} ({job_type}, attempt 1): Completed"
    at = [run.stderr.index(line) for line in (ready, got, became)]
    assert at == sorted(at)
