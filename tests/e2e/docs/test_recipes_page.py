"""The programs of docs/guides/recipes.md do what the page says."""

import contextlib
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobledger import Client
from tests.e2e.docs.programs import output, program, shell
from tests.support.forked import Piped
from tests.support.pages import ROOT, blocks, spans
from tests.support.ports import free_port
from tests.support.server_process import ServerProcess

PAGE = ROOT / "docs/guides/recipes.md"

WORKER = """
from jobledger import Failed, Worker

worker = Worker("127.0.0.1:50051", concurrency=4)


@worker.handler("count-words")
def count(job):
    return {"count": 100 * job.parameters["number"]}


@worker.handler("import-rows")
def import_rows(job):
    if job.parameters["first"] == 700:
        return Failed("no such file", "NO_FILE")


@worker.handler("render")
def render(job):
    job.progress(50, "half")


worker.run_sync()
"""


@pytest.fixture
def worker(own_server: ServerProcess) -> Iterator[None]:
    text = WORKER.replace("127.0.0.1:50051", own_server.target)
    process = Piped("python", [text], env=os.environ)
    yield
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(20)
    assert process.returncode == 0, said


@pytest.mark.usefixtures("worker")
def test_many_jobs_give_one_result(own_server: ServerProcess, tmp_path: Path) -> None:
    assert output(program(PAGE, "as_completed", own_server), tmp_path) == "5500\n"


@pytest.mark.usefixtures("worker")
def test_a_large_import_makes_a_job_of_each_hundred_rows_once_and_reruns_what_failed(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    chunks = program(PAGE, "import-rows", own_server)
    first = "Counter({'COMPLETED': 24, 'FAILED': 1})\n"
    assert [output(chunks, tmp_path) for _ in range(2)] == [first] * 2
    (rerun,) = [span for span in spans(PAGE) if span.startswith("jobledger rerun")]
    shell(f"{rerun} --yes", own_server.target, tmp_path)
    with Client(own_server.target, user_id="ada") as ada:
        jobs = list(ada.list_jobs())
        assert len(jobs) == 26
        (again,) = [job for job in jobs if job.origin_job_id]
        assert ada.get_job(again).parameters == {"first": 700, "last": 799}


@contextlib.contextmanager
def events_of(url: str, last: str = "") -> Iterator[Iterator[dict[str, Any]]]:
    """Read the events of a stream; each has its fields, and its data as JSON."""
    request = urllib.request.Request(url, headers={"Last-Event-ID": last} if last else {})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")

        def events() -> Iterator[dict[str, Any]]:
            fields: dict[str, Any] = {}
            for line in answer:
                if text := line.decode().rstrip("\n"):
                    name, _, value = text.partition(": ")
                    fields[name] = json.loads(value) if name == "data" else value
                else:
                    yield fields
                    fields = {}

        yield events()


def has_job(event: dict[str, Any]) -> bool:
    return "data" in event


@contextlib.contextmanager
def served(own_server: ServerProcess, folder: Path) -> Iterator[str]:
    """Run the page's endpoint; yield its URL."""
    port = free_port()
    *_, text = program(PAGE, "StreamingResponse", own_server)
    (folder / "events.py").write_text(text.replace("port=8000", f"port={port}"))
    with subprocess.Popen([sys.executable, "events.py"], cwd=folder) as process:
        end = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/openapi.json").close()
                break
            except urllib.error.URLError:
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.05)
        try:
            yield f"http://127.0.0.1:{port}/events"
        finally:
            process.terminate()


def test_a_users_events_are_the_jobs_of_this_user_and_go_on_after_a_break(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    with (
        served(own_server, tmp_path) as url,
        Client(own_server.target, user_id="ada") as ada,
        Client(own_server.target, user_id="grace") as grace,
    ):
        job = ada.create_job("render")
        grace.create_job("render")
        with events_of(url) as events:
            listed = next(events)
            synced = next(events)  # what was there has been sent
        assert (listed["data"]["id"], listed["data"]["state"]) == (job.id, "QUEUED")
        assert not has_job(synced)

        ada.start_job(job.id)  # while no browser is connected
        ada.mark_completed(job.id, attempt=1)
        with events_of(url, synced["id"]) as events:
            missed = [event["data"] for event in itertools.takewhile(has_job, events)]
        assert {event["id"] for event in missed} == {job.id}
        assert missed[-1]["state"] == "COMPLETED"

        ada.delete_job(job.id)
        with events_of(url, "of another user") as events:  # the jobs are listed again
            assert not has_job(next(events))


@pytest.mark.usefixtures("worker")
def test_an_order_gets_one_job_and_its_state_though_the_program_dies_in_between(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    python, option, text = program(PAGE, "orders.db", own_server)
    # It dies after the creation of the job, before its row has the job's id.
    stored = '        with database:\n            database.execute("UPDATE orders SET job_id'
    assert stored in text
    killed = text.replace(stored, f"        raise SystemExit(9)\n{stored}")
    run = subprocess.run([python, option, killed], cwd=tmp_path, check=False, timeout=60)
    assert run.returncode == 9
    without = [python, option, text.replace('        order("castle")\n', "")]
    assert output(without, tmp_path) == "[(1, 'castle', 'COMPLETED')]\n"
    printed = output([python, option, text], tmp_path)
    assert printed == "[(1, 'castle', 'COMPLETED'), (2, 'castle', 'COMPLETED')]\n"
    with Client(own_server.target, user_id="shop") as shop:
        jobs = {job.id for job in shop.list_jobs()}
    with contextlib.closing(sqlite3.connect(tmp_path / "orders.db")) as database:
        assert {row[0] for row in database.execute("SELECT job_id FROM orders")} == jobs
    assert len(jobs) == 2


def test_each_program_of_the_page_has_a_test() -> None:
    assert len(blocks(PAGE, "python")) == 4
