"""The pytest plugin, from outside: a project of its own, whose tests use it."""

import os
import subprocess
import sys
import textwrap

import pytest

from jobledger.testing import ServerFailed, local_server
from tests.support import pytest_run

TESTS = """
import sys

from jobledger import Client, JobStatus
from jobledger.testing import run_handler


def render(job):
    job.progress(50, "halfway")
    return {"frames": job.parameters["frames"]}


def test_a_handler():
    run = run_handler(render, {"frames": 240})
    assert run.outcome.result == {"frames": 240}
    assert run.reports[0].message == "halfway"


def test_an_owner(jobledger_server):
    with Client(jobledger_server.target, user_id="ada") as client:
        job = client.create_job("render", {"frames": 240})
        assert job.status is JobStatus.QUEUED
        assert [each.id for each in client.list_jobs()] == [job.id]


def test_another_one(jobledger_server):
    with Client(jobledger_server.target, user_id="ada") as client:
        assert len(list(client.list_jobs())) == {jobs}
        assert (jobledger_server.folder / "jobledger.db").exists()
"""

LIGHT = """
import sys

HEAVY = {"grpc", "google.protobuf", "jobledger.core", "jobledger.worker", "jobledger_server"}


def test_the_plugin_alone_imports_nothing():
    assert "jobledger.testing.pytest_plugin" in sys.modules
    assert not HEAVY & set(sys.modules)
"""


def run_pytest(folder, *arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "JOBLEDGER"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_a_project_tests_its_handlers_and_with_a_server_for_each_test(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "test_render.py").write_text(TESTS.replace("{jobs}", "0"))
    run = run_pytest(tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "3 passed" in run.stdout


def test_a_project_can_share_one_server(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\njobledger_server_scope = session\n")
    (tmp_path / "test_render.py").write_text(TESTS.replace("{jobs}", "1"))
    run = pytest_run.run_pytest(tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_plugin_costs_nothing_where_it_is_not_used(tmp_path):
    (tmp_path / "test_light.py").write_text(LIGHT)
    run = run_pytest(tmp_path, "-p", "no:hypothesispytest")
    assert run.returncode == 0, run.stdout + run.stderr


def serves(folder, monkeypatch, program):
    """Have a program run in place of the server."""
    file = folder / "server"
    file.write_text(f"#!{sys.executable}\n{textwrap.dedent(program)}")
    file.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(file))


def test_a_server_that_does_not_start_is_reported_with_the_end_of_its_log(tmp_path, monkeypatch):
    serves(
        tmp_path,
        monkeypatch,
        """\
        import sys
        sys.exit("Error: cannot use the database x: file is not a database")
        """,
    )
    running = local_server(tmp_path)
    with pytest.raises(ServerFailed, match=r"^the server exited with 1: .*database"), running:
        pass


LINES = [
    b'{"event": "serv',
    b"{}",
    b'{"event": ["serving"]}',
    b"\xff",
    b'{"event": "serving", "address": "127.0.0.1:1"}',
]


def test_a_log_line_that_is_no_event_is_passed_over(tmp_path, monkeypatch):
    program = f"""\
        import signal, sys
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        sys.stderr.buffer.write(b'\\n'.join({LINES}) + b'\\n')
        sys.stderr.flush()
        signal.pause()
        """
    serves(tmp_path, monkeypatch, program)
    with local_server(tmp_path) as server:
        assert server.target == "127.0.0.1:1"


def test_a_server_that_does_not_serve_in_time_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr("jobledger.testing.server.START", 1.0)
    serves(
        tmp_path,
        monkeypatch,
        """\
        import signal, sys
        sys.stderr.write("the disk is slow\\n")
        sys.stderr.flush()
        signal.pause()
        """,
    )
    running = local_server(tmp_path)
    with pytest.raises(ServerFailed, match=r"^the server does not serve after 1 s: "), running:
        pass
