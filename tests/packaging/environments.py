"""Environments with an install of Jobledger, and a server in one of them."""

import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


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


Install = Callable[[str], Environment]
"""Installs `jobledger` with the extras given, for instance `[server]`, or with none."""


def serve_until_healthy(server: Environment, data: Path) -> None:
    """Serve until the health command says yes, then ask the server to stop, which it must."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    program = str(server.folder / "bin/jobledger-server")
    settings = {
        "PATH": str(server.folder / "bin"),
        "JOBLEDGER_DATABASE": f"sqlite:///{data}/jobledger.db",
        "JOBLEDGER_LISTEN": address,
    }
    with (
        (data / "log").open("w+") as log,
        subprocess.Popen([program, "serve"], env=settings, stdout=log, stderr=log) as process,
    ):
        try:
            healthy = False
            until = time.monotonic() + 60
            while not healthy and process.poll() is None and time.monotonic() < until:
                # Starting the command takes longer than any pause would.
                health = server.run("jobledger-server", "health", "--target", address)
                healthy = health.returncode == 0
            log.seek(0)
            assert healthy, log.read()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
    assert (data / "jobledger.db").exists()
    unhealthy = server.run("jobledger-server", "health", "--target", address)
    assert unhealthy.returncode != 0
    assert "Traceback" not in unhealthy.stderr
