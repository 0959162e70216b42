"""The path of a newcomer through the pages, with their programs as real processes, loses nothing.

The programs are those of the pages, but for the address and for how long work takes.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobledger import AttemptOutcome, Client, Job, JobStatus
from tests.support.access_file import rule, write_access_file
from tests.support.pages import QUICKSTART, ROOT, blocks
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.server_process import ServerProcess

PYTHON, WORKERS = ROOT / "docs/guides/python.md", ROOT / "docs/guides/workers.md"
PRODUCTION = ROOT / "docs/operate/workers.md"
DEFAULT_TARGET = "127.0.0.1:50051"


def code(page: Path, words: str) -> str:
    """Return the one program of a page that has these words."""
    (text,) = [block.text for block in blocks(page, "python") if words in block.text]
    return text


@contextlib.contextmanager
def running(
    file: Path, *, environment: dict[str, str] | None = None, **options: Any
) -> Iterator["subprocess.Popen[str]"]:
    """Run a program as its reader does: `python FILE`."""
    with subprocess.Popen(
        [sys.executable, file.name],
        cwd=file.parent,
        env={**os.environ, **(environment or {})},
        text=True,
        **options,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def write(folder: Path, name: str, text: str, target: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(text.replace(DEFAULT_TARGET, target))
    return file


def reached(client: Client, job: str, condition: Any) -> Job:
    """Wait until the job meets a condition; return it."""
    with client.watch(job) as changes:
        return next(change.job for change in changes if condition(change.job))


def first_job(client: Client) -> Job:
    """Return the job of a client that has one, or will have one."""
    with client.watch_jobs() as events:
        return next(event.job for event in events if event.job is not None)


def a_job_survives_the_kill_of_its_worker(ada: Client, target: str, folder: Path) -> None:
    """The Quickstart's fourth step: SIGKILL in the midst of a job."""
    write(folder, "hello_task.py", code(QUICKSTART, 'Task("greet"'), target)
    quick = code(QUICKSTART, "@worker.handler").replace("time.sleep(2)", "time.sleep(0.5)")
    worker = write(folder, "hello_worker.py", quick.replace("lease=10", "lease=5"), target)
    with running(worker) as first:
        job = ada.create_job("greet", {"name": "Ada"})
        reached(ada, job.id, lambda job: job.progress > 0)
        first.kill()
        first.wait()
    with running(worker):
        ended = ada.wait(job, timeout=60)
    assert (ended.status, ended.result, ended.attempt) == (
        JobStatus.COMPLETED,
        {"greeting": "Hello Ada"},
        2,
    )
    lost, done = ada.list_attempts(job)
    assert (lost.outcome, done.outcome) == (
        AttemptOutcome.LEASE_EXPIRED,
        AttemptOutcome.COMPLETED,
    )
    assert lost.worker_id != done.worker_id


def a_handler_in_a_process_of_its_own_does_its_job_once(
    ada: Client, target: str, folder: Path
) -> None:
    """As the Tutorial writes it, at the handler of the Quickstart."""
    write(folder, "hello_task.py", code(QUICKSTART, 'Task("greet"'), target)
    quick = code(QUICKSTART, "@worker.handler").replace("time.sleep(2)", "time.sleep(0.1)")
    text = quick.replace("handler(greet)", 'handler(greet, executor="process")')
    assert text != quick
    with running(write(folder, "hello_worker.py", text, target)):
        ended = ada.wait(ada.create_job("greet", {"name": "Ada"}), timeout=60)
    assert (ended.status, ended.result, ended.attempt) == (
        JobStatus.COMPLETED,
        {"greeting": "Hello Ada"},
        1,
    )


def a_web_application_with_a_worker_inside_ends_at_the_first_sigterm(
    web: Client, target: str, folder: Path
) -> None:
    port = free_port()
    text = code(WORKERS, "FastAPI").replace("port=8000", f"port={port}")
    file = write(folder, "application.py", text, target)
    with running(file) as application:
        job_id = _order(f"http://127.0.0.1:{port}/thumbnails/a.png", application)
        assert web.wait(job_id, timeout=60).result == {"file": "a.png"}
        application.send_signal(signal.SIGTERM)
        assert application.wait(30) in {0, -signal.SIGTERM}


def _order(url: str, application: "subprocess.Popen[str]") -> str:
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="POST")) as answer:
                return str(json.load(answer)["id"])
        except urllib.error.URLError:
            assert application.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)


def a_rotated_token_loses_no_job(folder: Path) -> None:
    """The worker is refused between the two steps of the rotation, and goes on after them."""
    folder.mkdir()
    owner = rule("owner", 'roles = ["owner"]\nusers = ["ada"]')

    def rules(token: str) -> str:
        return owner + rule("worker", 'roles = ["worker"]\njob_types = ["thumbnail"]', token)

    access = folder / "access.toml"
    write_access_file(access, rules("old"))
    (folder / "worker.token").write_text("old\n")
    with ServerProcess(folder, arguments=("--access", str(access))) as server:
        quick = code(PRODUCTION, "token=lambda").replace("time.sleep(1)", "time.sleep(0.5)")
        worker = write(folder, "worker.py", quick, server.target)
        with (
            running(worker) as process,
            Client(server.target, user_id="ada", token="owner") as ada,
        ):
            job = ada.create_job("thumbnail")
            reached(ada, job.id, lambda job: job.progress > 0)
            write_access_file(access, rules("new"))
            _until_logged(server, "unknown_token")
            (folder / "worker.token").write_text("new\n")
            ended = ada.wait(job, timeout=60)
            assert (ended.status, ended.attempt) == (JobStatus.COMPLETED, 1)
            assert process.poll() is None


def _until_logged(server: ServerProcess, words: str) -> None:
    end = time.monotonic() + 30
    while words not in server.log.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)


async def a_call_whose_answer_was_lost_is_repeated_without_a_second_job(
    server: ServerProcess, folder: Path
) -> None:
    async with Proxy(server.target) as line:
        line.swallow_answers()
        text = code(PYTHON, "request_id=request_id").replace(
            'user_id="ada"', 'user_id="repeats", timeout=2'
        )
        file = write(folder, "repeat.py", text, line.target)
        with (
            running(file, stdout=subprocess.PIPE) as program,
            Client(server.target, user_id="repeats") as client,
        ):
            assert program.stdout is not None
            job = await asyncio.to_thread(first_job, client)  # it was made
            refused = await asyncio.to_thread(program.stdout.readline)
            assert refused.startswith("no answer: ")
            line.release_answers()
            printed = await asyncio.to_thread(program.stdout.read)
            assert printed.splitlines()[-1] == f"{job.id} True"
            assert [each.id for each in client.list_jobs()] == [job.id]


@pytest.mark.timeout(300)
def test_the_path_of_a_newcomer_loses_and_doubles_no_job(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    target = own_server.target
    with Client(target, user_id="ada") as ada, Client(target, user_id="web") as web:
        a_job_survives_the_kill_of_its_worker(ada, target, tmp_path / "quickstart")
        a_handler_in_a_process_of_its_own_does_its_job_once(ada, target, tmp_path / "process")
        a_web_application_with_a_worker_inside_ends_at_the_first_sigterm(
            web, target, tmp_path / "application"
        )
    a_rotated_token_loses_no_job(tmp_path / "rotation")
    asyncio.run(
        a_call_whose_answer_was_lost_is_repeated_without_a_second_job(
            own_server, tmp_path / "repetition"
        )
    )
