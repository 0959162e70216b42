"""The Python programs of docs/guides/workers.md and testing.md run."""

import asyncio
import os
import signal

import pytest

from jobledger import AsyncClient, JobStatus
from tests.support.forked import Piped
from tests.support.pages import ROOT, blocks
from tests.support.pytest_run import run_pytest

GUIDES = ROOT / "docs/guides"
PROGRAMS = [block.text for block in blocks(GUIDES / "workers.md", "python")]
# That in a web application is a step of tests/e2e/docs/test_newcomer.py.
WORKERS = [text for text in PROGRAMS if "worker = Worker(" in text and "uvicorn" not in text]
TESTS = [block.text for block in blocks(GUIDES / "testing.md", "python")]

# For each worker of the page, in their order: a job, its result and its last message.
JOBS = [
    ("thumbnail", {"file": "castle.png"}, {"count": 1}, "decoding castle.png"),
    ("pack", {"files": ["a", "b"]}, {"files": 2}, "b"),
    ("query", {"sql": "SELECT 6 * 7"}, {"value": 42}, ""),
]


def test_each_worker_of_the_page_is_tested():
    assert len(WORKERS) == len(JOBS)


@pytest.mark.parametrize("number", range(len(JOBS)))
async def test_a_worker_of_the_page_does_its_job_until_sigterm(own_server, tmp_path, number):
    job_type, parameters, result, message = JOBS[number]
    text = WORKERS[number].replace("127.0.0.1:50051", own_server.target)
    worker = Piped("python", [text], env=os.environ, cwd=tmp_path)
    try:
        async with AsyncClient(own_server.target, user_id="ada") as client:
            job = await client.create_job(job_type, parameters)
            done = await client.wait(job.id, timeout=30)
        assert (done.status, done.result) == (JobStatus.COMPLETED, result)
        assert done.progress_message == message
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, 20) == 0
    finally:
        worker.kill()
        worker.communicate()


def test_the_tests_of_the_page_pass(tmp_path):
    (text,) = TESTS
    (tmp_path / "test_render.py").write_text(text)
    run = run_pytest(tmp_path)
    assert "3 passed" in run.stdout, run.stdout + run.stderr
