"""A browser's calls, gRPC-Web or Connect, through Envoy with the configuration in deploy/."""

import base64
import contextlib
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from jobledger.v1.job_pb2 import JobStatus
from tests.polyglot.envoy import running_envoy
from tests.polyglot.ledger import Ledger, job_in, transitions_in
from tests.polyglot.programs import Event
from tests.support.pages import ROOT
from tests.support.server_process import ServerProcess

BUF = Path(sys.executable).with_name("buf")
ORIGIN = "https://app.example"
PROTOCOLS = pytest.mark.parametrize("protocol", ["grpcweb", "connect"])


@pytest.fixture(scope="module")
def envoy(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return Envoy's URL."""
    with running_envoy(server, tmp_path_factory.mktemp("envoy")) as target:
        yield f"http://{target}"


def command(url: str, method: str, request: Event, protocol: str = "grpcweb") -> list[str]:
    return [
        str(BUF),
        *("curl", "--protocol", protocol, "--schema", str(ROOT)),
        *("--data", json.dumps(request), f"{url}/jobledger.v1.JobService/{method}"),
    ]


def curl(
    url: str, method: str, request: Event, protocol: str = "grpcweb"
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(url, method, request, protocol),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def post(url: str, method: str, **headers: str) -> HTTPResponse:
    request = urllib.request.Request(f"{url}/jobledger.v1.JobService/GetJob", method=method)
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    if method == "POST":
        # One message of no bytes: a GetJobRequest with neither job nor user.
        request.data = b"\0" * 5
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=30)


@PROTOCOLS
def test_a_browser_makes_a_unary_call(envoy: str, ledger: Ledger, protocol: str) -> None:
    answer = curl(envoy, "CreateJob", {"userId": "browser", "jobType": "render"}, protocol)
    assert answer.returncode == 0, answer.stderr
    job = job_in(json.loads(answer.stdout))
    assert job == ledger.get(job)


@PROTOCOLS
def test_a_browser_gets_a_stream_message_by_message(
    envoy: str, ledger: Ledger, protocol: str
) -> None:
    job = ledger.create("browser")
    line = command(envoy, "WatchJob", {"userId": "browser", "jobId": job.id}, protocol)
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as watch:
        try:
            assert watch.stdout is not None
            messages = read_objects(watch.stdout)
            assert job_in(next(messages)) == job
            started = ledger.start(job)
            assert job_in(next(messages)) == started
            ended = ledger.complete(job)
            last = next(messages)
            assert job_in(last) == ended
            assert [t.to_status for t in transitions_in(last)] == [JobStatus.JOB_STATUS_COMPLETED]
            assert list(messages) == []
            assert watch.wait(30) == 0
        finally:
            watch.kill()


def test_a_stream_lasts_longer_than_a_call_may(envoy: str, ledger: Ledger) -> None:
    job = ledger.create("browser")
    line = command(envoy, "WatchJob", {"userId": "browser", "jobId": job.id})
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as watch:
        try:
            assert watch.stdout is not None
            messages = read_objects(watch.stdout)
            assert "heartbeat" not in next(messages)
            assert next(messages)["heartbeat"] is True
        finally:
            watch.kill()


def read_objects(lines: Iterator[str]) -> Iterator[Event]:
    """Read one JSON object after another; buf spreads each over several lines."""
    text = ""
    for line in lines:
        text += line
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(text)
            text = ""


@PROTOCOLS
def test_a_refusal_keeps_its_details(envoy: str, protocol: str) -> None:
    answer = curl(envoy, "GetJob", {"userId": "browser", "jobId": "none"}, protocol)
    error = json.loads(answer.stderr)
    assert answer.returncode != 0
    assert error["code"] == "not_found"
    # Of Connect's details Envoy has the names of the types with their prefix.
    details = {each["type"].rpartition("/")[2]: each["value"] for each in error["details"]}
    packed = details["google.rpc.ErrorInfo"]
    info = ErrorInfo.FromString(base64.b64decode(packed + "=="))
    assert (info.domain, info.reason) == ("jobledger", "JOB_NOT_FOUND")


def test_a_page_of_an_allowed_origin_may_call_and_read_the_details(envoy: str) -> None:
    asked = "authorization,content-type,x-grpc-web"
    preflight = post(
        envoy,
        "OPTIONS",
        Origin=ORIGIN,
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers=asked,
    )
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert set(asked.split(",")) <= set(
        preflight.headers["access-control-allow-headers"].split(",")
    )
    answer = post(envoy, "POST", Origin=ORIGIN, Content_Type="application/grpc-web+proto")
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "grpc-status-details-bin" in answer.headers["access-control-expose-headers"]


def test_a_page_of_another_origin_may_not_call(envoy: str) -> None:
    answer = post(
        envoy, "POST", Origin="https://evil.example", Content_Type="application/grpc-web+proto"
    )
    assert answer.headers["access-control-allow-origin"] is None


@pytest.mark.parametrize(
    "path", ["jobledger.v1.WorkerService/ClaimJobs", "grpc.health.v1.Health/Check"]
)
def test_the_proxy_refuses_paths_that_are_not_for_browsers(envoy: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{envoy}/{path}", timeout=30)
