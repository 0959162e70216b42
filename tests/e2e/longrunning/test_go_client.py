"""Google's Go client for long-running operations, unchanged, in a program built for the test.

Run by `make test-polyglot`: it needs Go and the packages that `go/go.mod` names.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
from google.protobuf import json_format

from jobledger.v1 import job_pb2
from jobledger_client import Client
from tests.support.pages import ROOT, blocks
from tests.support.server_process import ServerProcess

# The first build compiles gRPC and all that Google's client rests on.
pytestmark = [pytest.mark.polyglot, pytest.mark.timeout(900)]

Line = dict[str, Any]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, with code generated from the protos as they are now."""
    folder = tmp_path_factory.mktemp("go") / "operations"
    shutil.copytree(ROOT / "tests/e2e/longrunning/go", folder)
    buf = str(Path(sys.executable).with_name("buf"))
    job = ROOT / "protos/jobledger/v1/job.proto"
    (page,) = blocks(ROOT / "docs/longrunning.md", "go")
    (folder / "page").mkdir()
    (folder / "page/main.go").write_text(page.text.replace('"127.0.0.1:50051"', "os.Args[2]"))
    for command in (
        [buf, "generate", str(ROOT / "protos"), "--path", str(job)],
        ["go", "build", "-o", "build/", "./..."],
        ["go", "vet", "./..."],
    ):
        subprocess.run(command, cwd=folder, check=True)
    return folder / "build/longrunning"


@pytest.fixture
def ask(program: Path, server: ServerProcess) -> Callable[..., list[Line]]:
    """Run the program once and return what it printed."""

    def ask(verb: str, argument: str, user: str = "ada") -> list[Line]:
        run = subprocess.run(
            [program, server.target, user, verb, argument],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=90,
        )
        return [json.loads(line) for line in run.stdout.splitlines()]

    return ask


def job_in(told: Line) -> job_pb2.Job:
    return json_format.ParseDict(told, job_pb2.Job())


def next_line(output: IO[str] | None) -> Line:
    assert output is not None
    return json.loads(output.readline())


def test_poll_and_wait_give_the_job_that_has_completed(
    ask: Callable[..., list[Line]], ada: Client
) -> None:
    job = ada.start_job(ada.create_job("render", {"frames": 240}).id)
    found, polled = ask("poll", f"jobs/{job.id}")
    assert found["name"] == f"jobs/{job.id}"
    assert (found["done"], polled["done"], polled.get("response")) == (False, False, None)
    assert job_in(found["metadata"]) == job
    ended = ada.mark_completed(job.id, {"pages": 4, "title": "Füße 🦊"})
    for verb in ("poll", "wait"):
        found, followed = ask(verb, f"jobs/{job.id}")
        assert followed["done"]
        assert job_in(followed["response"]) == job_in(followed["metadata"]) == ended


def test_wait_returns_when_the_job_ends(program: Path, server: ServerProcess, ada: Client) -> None:
    job = ada.start_job(ada.create_job("render").id)
    with subprocess.Popen(
        [program, server.target, "ada", "wait", f"jobs/{job.id}"],
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert not next_line(running.stdout)["done"]
        error = job_pb2.JobError(reason="PAGES_MISSING", message="page 3")
        ended = ada.mark_partial(job.id, {"pages": 2}, error=error)
        told = next_line(running.stdout)
    assert job_in(told["response"]) == ended
    assert job_in(told["response"]).error == error
    assert running.returncode == 0


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("NO_SUCH_FONT", "Unknown"),
        ("CANCELLED", "Canceled"),
        ("QUEUE_EXPIRED", "DeadlineExceeded"),
        ("RUN_EXPIRED", "DeadlineExceeded"),
        ("LEASE_EXPIRED", "Aborted"),
    ],
)
def test_a_failed_job_is_an_error_with_its_reason(
    ask: Callable[..., list[Line]], ada: Client, reason: str, code: str
) -> None:
    job = ada.start_job(ada.create_job("render").id)
    ended = ada.mark_failed(job.id, error=job_pb2.JobError(reason=reason, message="in words"))
    _, told = ask("wait", f"jobs/{job.id}")
    assert told["done"]
    assert told["error"] == {
        "code": code,
        "message": "in words",
        "reason": reason,
        "domain": "jobs.jobledger",
        "metadata": {"job_id": job.id, "job_type": "render", "attempt": "1"},
    }
    assert job_in(told["metadata"]) == ended


def test_wait_operation_ends_with_a_cancellation(
    program: Path, server: ServerProcess, ada: Client, ask: Callable[..., list[Line]]
) -> None:
    job = ada.create_job("render")
    with subprocess.Popen(
        [program, server.target, "ada", "wait-operation", f"jobs/{job.id}"],
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert ask("cancel", f"jobs/{job.id}") == [{"event": "acted"}]
        told = next_line(running.stdout)
    assert told["done"]
    assert job_in(told["metadata"]).error.reason == "CANCELLED"


def test_a_list_goes_over_its_pages(ask: Callable[..., list[Line]], ada: Client) -> None:
    ids = [ada.create_job("paged").id for _ in range(5)]
    listed = ask("list", 'metadata.job_type="paged" AND done=false')
    assert [line["name"] for line in listed] == [f"jobs/{job_id}" for job_id in reversed(ids)]


def test_refusals_carry_the_services_reasons(ask: Callable[..., list[Line]], ada: Client) -> None:
    job = ada.start_job(ada.create_job("render").id)

    def refused(*arguments: str) -> tuple[str, str, str]:
        (line,) = ask(*arguments)
        return line["error"]["code"], line["error"]["reason"], line["error"]["domain"]

    domain = "jobledger"
    name = f"jobs/{job.id}"
    assert refused("delete", name) == ("FailedPrecondition", "ILLEGAL_TRANSITION", domain)
    assert refused("poll", name, "eve") == ("NotFound", "JOB_NOT_FOUND", domain)
    assert refused("cancel", "job/1") == ("InvalidArgument", "INVALID_FIELD", domain)
    assert refused("list", "done") == ("InvalidArgument", "INVALID_FIELD", domain)
    ada.mark_completed(job.id)
    assert ask("delete", name) == [{"event": "acted"}]
    assert refused("poll", name) == ("NotFound", "JOB_NOT_FOUND", domain)


def test_the_program_of_the_page_waits_for_the_job(
    program: Path, server: ServerProcess, ada: Client
) -> None:
    job = ada.start_job(ada.create_job("report").id)
    with subprocess.Popen(
        [program.with_name("page"), job.id, server.target], stdout=subprocess.PIPE, text=True
    ) as running:
        ada.mark_completed(job.id, {"pages": 4})
        said = running.communicate(timeout=60)[0]
    assert running.returncode == 0
    assert "pages" in said
