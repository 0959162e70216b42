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
DISTRIBUTIONS = {
    "client": "jobledger",
    "server": "jobledger_server",
    "gateway": "jobledger_gateway",
    "world": "jobledger_world",
}
"""Each folder that is published, and the package in it."""
VERSION = (ROOT / "release/VERSION").read_text("utf-8").strip()


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

    From the wheels, unless it is given a folder with other files.
    """

    def __call__(self, extras: str, dist: Path = ...) -> Environment: ...


def constraints(dist: Path) -> list[str]:
    """Return the options of uv that take the four from a folder, and all else from the lock."""
    own = dist / "constraints.txt"
    names = {file.name.partition("-")[0].replace("_", "-"): file for file in built(dist)}
    own.write_text("".join(f"{name} @ {file.as_uri()}\n" for name, file in names.items()))
    return [f"--constraints={own}", f"--constraints={ROOT / 'requirements.lock'}"]


def built(dist: Path) -> list[Path]:
    """Return the wheels or the sdists in a folder: one of each distribution."""
    files = sorted([*dist.glob("*.whl"), *dist.glob("*.tar.gz")])
    assert len(files) == len(DISTRIBUTIONS)
    return files


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
