"""`jobledger-server dev`: one command that starts the service and the page, and ends both."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from jobledger import Client, JobStatus
from tests.e2e.cli.terminal import Terminal
from tests.e2e.server.on_terminal import on_terminal
from tests.support.forked import Piped
from tests.support.server_process import run_server

PROGRAM = str(Path(sys.executable).with_name("jobledger-server"))
FREE_PORTS = ("--port", "0", "--web-port", "0")


class Dev:
    """A running `jobledger-server dev`, and what its summary says."""

    def __init__(self, process: "Piped | subprocess.Popen[str]", lines: list[str]) -> None:
        self.process = process
        facts = dict(
            line.strip().split(maxsplit=1)
            for line in lines
            if re.match("  (page|gRPC|jobs) ", line)
        )
        self.page, self.jobs = facts["page"], facts["jobs"]
        self.target = facts["gRPC"].partition(",")[0]
        self.commands = [line.strip() for line in lines if line.startswith("  /")]

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.page + path, timeout=30) as answer:
            return answer.read()

    def page_is_gone(self) -> bool:
        host, port = self.page.removeprefix("http://").split(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) != 0


def ready(process: "Piped | subprocess.Popen[str]") -> Dev:
    """Wait until the summary is complete."""
    assert process.stdout is not None
    lines: list[str] = []
    while not (lines and "worker exec" in lines[-1]):
        lines.append(process.stdout.readline())
        assert lines[-1], "the command has ended"
    return Dev(process, lines)


@contextmanager
def developing(where: Path) -> Iterator[Dev]:
    """Run the command in a folder, with an empty $PATH and a proxy for other machines."""
    proxy = {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    environment = {**os.environ, **proxy, "PATH": "/usr/bin:/bin"}
    process = Piped("jobledger-server", ["dev", *FREE_PORTS], env=environment, cwd=where)
    try:
        yield ready(process)
    finally:
        process.kill()
        process.communicate()


def until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_commands_that_dev_prints_create_watch_and_finish_a_job(tmp_path: Path) -> None:
    with developing(tmp_path) as dev:
        create, watch, work = dev.commands

        def start(command: str, **files: Any) -> Any:
            return subprocess.Popen(
                command, shell=True, cwd=tmp_path, text=True, start_new_session=True, **files
            )

        job_id = start(create, stdout=subprocess.PIPE).communicate()[0].split()[-1]
        screen = Terminal(partial(start, f"exec {watch}"), 100, 20)
        try:
            screen.until(lambda lines: any("greet" in line for line in lines))
        finally:
            screen.close()
        with start(work) as worker:
            try:
                with Client(dev.target, user_id="ada") as client:
                    assert client.wait(job_id, timeout=60).status is JobStatus.COMPLETED
            finally:
                os.killpg(worker.pid, signal.SIGTERM)
        answer = json.loads(dev.get(f"/v1/jobs/{job_id}?user_id=ada"))
        assert answer["job"]["status"] == "JOB_STATUS_COMPLETED"
        assert "jobledger.v1.JobService" in services(dev.target)
        assert b"<title>Jobledger</title>" in dev.get("/")
        dev.process.send_signal(signal.SIGINT)
        assert dev.process.wait(30) == 0
        assert dev.page_is_gone()
    assert (tmp_path / "jobledger.db").exists()


def services(target: str) -> set[str]:
    """Return the names that reflection has."""
    with grpc.insecure_channel(target) as channel:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=30)
        return {service.name for service in answer.list_services_response.service}


def test_dev_and_its_page_end_with_the_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = on_terminal(theirs, "dev", *FREE_PORTS, cwd=tmp_path)
    try:
        dev = ready(process)
        assert not dev.page_is_gone()
        os.close(theirs)
        os.close(ours)
        assert process.wait(30) == 0
        assert dev.page_is_gone()
    finally:
        process.kill()
        process.communicate()


def refused(where: Path, *arguments: str) -> str:
    """Run the command, which fails; return its error."""
    done = run_server("dev", *FREE_PORTS, *arguments, cwd=where)
    assert done.returncode == 1
    return done.stderr


def test_what_keeps_dev_from_starting_is_named_and_a_killed_ones_page_ends(
    tmp_path: Path,
) -> None:
    with developing(tmp_path) as dev:
        again = refused(tmp_path)
        assert f"another jobledger-server (process {dev.process.pid}) uses the database" in again
        elsewhere = tmp_path / "other"
        elsewhere.mkdir()
        for flag, taken in (("--port", dev.target), ("--web-port", dev.page)):
            error = refused(elsewhere, flag, taken.rpartition(":")[2])
            assert taken.removeprefix("http://") in error
            assert error.endswith(f"choose another port with {flag}\n")
        dev.process.kill()
        until(dev.page_is_gone)


def test_without_the_extra_web_dev_says_how_to_install_it_and_serves(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nsys.modules |= {'jobledger_gateway': None, 'rich': None}\n"
    )
    with subprocess.Popen(
        [PROGRAM, "dev", *FREE_PORTS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            lines = iter(process.stdout.readline, "")
            said = [next(lines)]
            while "jobledger[web]' brings the command" not in said[-1]:
                said.append(next(lines))
            assert [
                line for line in said if "page" in line and "pip install 'jobledger[web]'" in line
            ]
            (target,) = [line.split()[1].rstrip(",") for line in said if "gRPC" in line]
            with Client(target, user_id="ada") as client:
                assert client.create_job("greet").version == 1
        finally:
            process.kill()
