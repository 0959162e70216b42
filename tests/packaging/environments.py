"""Environments with an install of Jobledger, and a server in one of them."""

import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.support.pages import ROOT
from tests.support.ports import free_port

UV = ROOT / ".venv/uv/bin/uv"


@dataclass(frozen=True)
class Environment:
    """A virtual environment with nothing in it but what an install of Jobledger brings."""

    folder: Path

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run one of its programs, with only this environment on the path."""
        return subprocess.run(
            [str(self.folder / "bin" / command[0]), *command[1:]],
            env={"PATH": str(self.folder / "bin"), "HOME": str(self.folder), **environ},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def python(self, program: str) -> str:
        """Run a program that must succeed and return what it writes."""
        run = self.run("python", "-W", "error", "-c", program)
        assert run.returncode == 0, run.stderr
        return run.stdout


class Install(Protocol):
    """Installs `jobledger` with the extras given, for instance `[server]`, or with none.

    From the wheel, unless it is given another file.
    """

    def __call__(self, extras: str, dist: Path = ...) -> Environment: ...


def serve_and_stop(command: list[str], data: Path, environ: Mapping[str, str]) -> None:
    """Serve until the server says that it does, then ask it to stop, which it must."""
    address = f"127.0.0.1:{free_port()}"
    settings = {
        **environ,
        "JOBLEDGER_DATABASE": f"sqlite:///{data}/jobledger.db",
        "JOBLEDGER_LISTEN": address,
    }
    with subprocess.Popen([*command, "serve"], env=settings) as process:
        try:
            assert health_of(address) == HealthCheckResponse.SERVING
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
    assert (data / "jobledger.db").exists()


def health_of(address: str) -> int:
    """Return what a server says of its health, as soon as it listens."""
    with grpc.insecure_channel(address) as channel:
        request = HealthCheckRequest()
        return HealthStub(channel).Check(request, wait_for_ready=True, timeout=60).status
