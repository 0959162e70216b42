"""etcd as a process: one member alone, as durable as it is by default."""

import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import BenchmarkError, free_port

START_SECONDS = 20.0


@dataclass(frozen=True)
class EtcdServer:
    """A running etcd, and the version that it reports."""

    target: str
    pid: int
    version: str


def has_etcd() -> bool:
    return shutil.which("etcd") is not None


@contextmanager
def serving_etcd(folder: Path) -> Iterator[EtcdServer]:
    """Serve on loopback from an empty folder for as long as the block lasts."""
    target, peers = (f"127.0.0.1:{free_port()}" for _ in range(2))
    command = [
        *("etcd", "--data-dir", str(folder / "etcd"), "--log-level", "warn"),
        *(
            "--listen-client-urls",
            f"http://{target}",
            "--advertise-client-urls",
            f"http://{target}",
        ),
        *("--listen-peer-urls", f"http://{peers}", "--initial-advertise-peer-urls"),
        *(f"http://{peers}", "--initial-cluster", f"default=http://{peers}"),
    ]
    # Settings in the environment could weaken its durability.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ETCD_")}
    log = folder / "etcd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        _wait_until_serving(process, target, log)
        yield EtcdServer(target, process.pid, _version())
    finally:
        process.kill()
        process.wait()


def _wait_until_serving(process: subprocess.Popen[bytes], target: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _is_healthy(target):
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchmarkError(f"etcd does not serve; its log: {log.read_text()}")
        time.sleep(0.05)


def _is_healthy(target: str) -> bool:
    connection = http.client.HTTPConnection(target, timeout=5)
    try:
        connection.request("GET", "/health")
        return bool(json.load(connection.getresponse())["health"] == "true")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _version() -> str:
    """Return the number in `etcd Version: 3.4.23`, the first line."""
    done = subprocess.run(["etcd", "--version"], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()[0].rpartition(" ")[2]
