"""Envoy in front of a server, with the configuration that deploy/ shows."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from jobledger.v1.job_service_pb2 import ListJobsRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.pages import ROOT
from tests.support.ports import free_port
from tests.support.server_process import ServerProcess

ENVOY = ROOT / ".venv/polyglot/bin/envoy"


@contextmanager
def running_envoy(server: ServerProcess, folder: Path) -> Iterator[str]:
    """Run Envoy until the block ends; give its address once it has found the server healthy."""
    port = free_port()
    (folder / "envoy.yaml").write_text(_configured(server, port), "utf-8")
    command = [str(ENVOY), "-c", str(folder / "envoy.yaml"), "--use-dynamic-base-id"]
    with (folder / "envoy.log").open("wb") as log:
        process = subprocess.Popen([*command, "--concurrency", "1"], stdout=log, stderr=log)
    try:
        target = f"127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        while not _serves(target):
            assert process.poll() is None, (folder / "envoy.log").read_text()
            assert time.monotonic() < deadline, (folder / "envoy.log").read_text()
        yield target
    finally:
        process.kill()
        process.wait()


def _configured(server: ServerProcess, port: int) -> str:
    """Return deploy/envoy.yaml with addresses of this machine; nothing else is changed."""
    text = (ROOT / "deploy/envoy.yaml").read_text("utf-8")
    for shown, own in (
        ("address: 0.0.0.0, port_value: 8080", f"address: 127.0.0.1, port_value: {port}"),
        ("address: jobledger, port_value: 50051", f"address: 127.0.0.1, port_value: {server.port}"),
    ):
        assert text.count(shown) == 1
        text = text.replace(shown, own)
    return text


def _serves(target: str) -> bool:
    with grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            JobServiceStub(channel).ListJobs(ListJobsRequest(user_id="nobody"), timeout=1)
        except grpc.RpcError as error:
            return error.code() == grpc.StatusCode.UNAUTHENTICATED
        return True
