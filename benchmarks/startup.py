"""How long the server takes to serve, and what importing the client costs."""

import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.processes import BenchmarkError, free_port
from benchmarks.report import Figure
from benchmarks.subjects import Database

IMPORTS = 5
"""In each round; of so short a time more are needed than of a start."""

START_SECONDS = 30.0
LOOK_SECONDS = 0.002

_SERVING = health_pb2.HealthCheckResponse.SERVING
_SERVICE = health_pb2.HealthCheckRequest(service="jobledger.v1.JobService")


class Startup:
    """Starts a server on a new SQLite file, and on a PostgreSQL database of today's schema."""

    def __init__(self, folder: Path, postgresql: Database) -> None:
        self._folder = folder
        self._postgresql = postgresql
        self._sqlite = Figure("Start to SERVING, new SQLite file", "s", bar=1.5, bar_of="value")
        self._postgres = Figure("Start to SERVING, PostgreSQL", "s", bar=1.5, bar_of="value")
        self._client = Figure(
            "import jobledger_client", "ms beyond import grpc", bar=100, bar_of="value"
        )

    @property
    def figures(self) -> list[Figure]:
        return [self._sqlite, self._postgres, self._client]

    notes: tuple[str, ...] = ()

    def prepare(self) -> None:
        """Do everything for once: the interpreter keeps what it has compiled."""
        self._start_both()
        _import_milliseconds("jobledger_client")

    def measure_round(self) -> None:
        on_sqlite, on_postgresql = self._start_both()
        self._sqlite.add(on_sqlite)
        self._postgres.add(on_postgresql)
        for _ in range(IMPORTS):
            stack = _import_milliseconds("grpc")
            self._client.add(_import_milliseconds("jobledger_client") - stack, stack)

    def _start_both(self) -> tuple[float, float]:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        return _start(f"sqlite:///{folder / 'jobledger.db'}"), _start(self._postgresql.url)


def _start(database: str) -> float:
    """Return the seconds from spawning a server to its being SERVING; then it is killed."""
    address = ("127.0.0.1", free_port())
    target = f"{address[0]}:{address[1]}"
    program = str(Path(sys.executable).with_name("jobledger-server"))
    command = [program, "serve", "--listen", target, "--database", database]
    begin = time.monotonic()
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        # By a socket first: a channel that finds nobody would try again much later.
        while not _listens(address):
            if server.poll() is not None or time.monotonic() > begin + START_SECONDS:
                raise BenchmarkError(f"a server on {database} does not start")
            time.sleep(LOOK_SECONDS)
        with grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while not _serves(health):
                if time.monotonic() > begin + START_SECONDS:
                    raise BenchmarkError(f"a server on {database} does not serve")
                time.sleep(LOOK_SECONDS)
        return time.monotonic() - begin
    finally:
        server.kill()
        server.wait()


def _listens(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address).close()
    except ConnectionRefusedError:
        return False
    return True


def _serves(health: health_pb2_grpc.HealthStub) -> bool:
    try:
        serving: bool = health.Check(_SERVICE, timeout=START_SECONDS).status == _SERVING
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.NOT_FOUND:  # the service has not been named yet
            return False
        raise BenchmarkError(f"a server that starts answers {error.code()}") from None
    return serving


def _import_milliseconds(module: str) -> float:
    """Return how long an interpreter takes that imports the module and ends."""
    begin = time.monotonic()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return (time.monotonic() - begin) * 1000
