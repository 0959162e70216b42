"""Google's Go client for long-running operations, unchanged, in a program built for the test.

It needs Go and the packages that `longrunning/go.mod` names.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from google.protobuf import json_format

from jobledger import Client, JobError
from jobledger.v1 import job_pb2
from tests.polyglot.builds import once_in_run
from tests.support.pages import ROOT, blocks
from tests.support.server_process import ServerProcess

# The first build compiles gRPC and all that Google's client rests on.
pytestmark = pytest.mark.timeout(900)

Line = dict[str, Any]


@pytest.fixture(scope="session")
def operations(request: pytest.FixtureRequest) -> Path:
    """The program, built by the first process of the run that needs it."""
    builds = request.config.cache.mkdir("polyglot-builds")
    folder = builds / "operations-in-go"
    with once_in_run(builds / "operations") as first:
        if first:
            build(folder)
    return folder / "build/longrunning"


def build(folder: Path) -> None:
    """Build it with code generated from the protos as they are now."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "tests/polyglot/longrunning", folder)
    buf = str(Path(sys.executable).with_name("buf"))
    job = ROOT / "protos/jobledger/v1/job.proto"
    (page,) = blocks(ROOT / "docs/guides/longrunning.md", "go")
    (folder / "page").mkdir()
    (folder / "page/main.go").write_text(page.text.replace('"127.0.0.1:50051"', "os.Args[2]"))
    for command in (
        [buf, "generate", str(ROOT / "protos"), "--path", str(job)],
        ["go", "build", "-o", "build/", "./..."],
        ["go", "vet", "./..."],
    ):
        subprocess.run(command, cwd=folder, check=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Return a server of the module's own."""
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def ada(server: ServerProcess) -> Iterator[Client]:
    with Client(server.target, user_id="ada") as client:
        yield client


@pytest.fixture
def ask(operations: Path, server: ServerProcess) -> Callable[..., list[Line]]:
    """Run the program once and return what it printed."""

    def ask(verb: str, argument: str, user: str = "ada") -> list[Line]:
        run = subprocess.run(
            [operations, server.target, user, verb, argument],
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


def test_poll_and_wait_return_the_completed_job(
    ask: Callable[..., list[Line]], ada: Client
) -> None:
    options = {"priority": 7, "fairness_key": "acme", "concurrency_key": "stripe"}
    job = ada.start_job(ada.create_job("render", {"frames": 240}, **options).id)
    found, polled = ask("poll", f"jobs/{job.id}")
    assert found["name"] == f"jobs/{job.id}"
    assert (found["done"], polled["done"], polled.get("response")) == (False, False, None)
    assert job_in(found["metadata"]) == ada.get_job(job.id).to_proto()
    assert (found["metadata"]["priority"], job_in(found["metadata"]).fairness_key) == (7, "acme")
    ada.mark_completed(job.id, {"pages": 4, "title": "Füße 🦊"}, attempt=1)
    ended = ada.get_job(job.id).to_proto()
    for verb in ("poll", "wait"):
        found, followed = ask(verb, f"jobs/{job.id}")
        assert followed["done"]
        assert job_in(followed["response"]) == job_in(followed["metadata"]) == ended


def test_wait_returns_when_the_job_finishes(
    operations: Path, server: ServerProcess, ada: Client
) -> None:
    job = ada.start_job(ada.create_job("render").id)
    with subprocess.Popen(
        [operations, server.target, "ada", "wait", f"jobs/{job.id}"],
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert not next_line(running.stdout)["done"]
        error = JobError("page 3", reason="PAGES_MISSING")
        ada.mark_partial(job.id, {"pages": 2}, error=error, attempt=1)
        told = next_line(running.stdout)
    assert job_in(told["response"]) == ada.get_job(job.id).to_proto()
    assert job_in(told["response"]).error == error.to_proto()
    assert running.returncode == 0


def test_a_failed_job_is_an_error_with_its_reason(
    ask: Callable[..., list[Line]], ada: Client
) -> None:
    job = ada.start_job(ada.create_job("render").id)
    error = JobError("in words", reason="NO_SUCH_FONT", details={"font": "Füße"})
    ada.mark_failed(job.id, error=error, attempt=1)
    _, told = ask("wait", f"jobs/{job.id}")
    assert told["done"]
    assert told["error"] == {
        "code": "Unknown",
        "message": "in words",
        "reason": "NO_SUCH_FONT",
        "domain": "jobs.jobledger",
        "metadata": {"job_id": job.id, "job_type": "render", "attempt": "1"},
    }
    assert job_in(told["metadata"]) == ada.get_job(job.id).to_proto()


def test_wait_operation_returns_when_the_job_is_cancelled(
    operations: Path, server: ServerProcess, ada: Client, ask: Callable[..., list[Line]]
) -> None:
    job = ada.create_job("render")
    with subprocess.Popen(
        [operations, server.target, "ada", "wait-operation", f"jobs/{job.id}"],
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert ask("cancel", f"jobs/{job.id}") == [{"event": "acted"}]
        told = next_line(running.stdout)
    assert told["done"]
    assert job_in(told["metadata"]).error.reason == "CANCELLED"
    _, followed = ask("wait", f"jobs/{job.id}")
    assert (followed["error"]["code"], followed["error"]["reason"]) == ("Canceled", "CANCELLED")


def test_a_list_of_operations_reads_all_pages(ask: Callable[..., list[Line]], ada: Client) -> None:
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
    ada.mark_completed(job.id, attempt=1)
    assert ask("delete", name) == [{"event": "acted"}]
    assert refused("poll", name) == ("NotFound", "JOB_NOT_FOUND", domain)


def test_the_program_of_the_page_waits_for_the_job(
    operations: Path, server: ServerProcess, ada: Client
) -> None:
    job = ada.start_job(ada.create_job("report").id)
    with subprocess.Popen(
        [operations.with_name("page"), job.id, server.target], stdout=subprocess.PIPE, text=True
    ) as running:
        ada.mark_completed(job.id, {"pages": 4}, attempt=1)
        said = running.communicate(timeout=60)[0]
    assert running.returncode == 0
    assert "pages" in said
