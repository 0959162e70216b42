"""What is measured: databases, and the real server on them, as anyone would start it."""

import asyncio
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import asyncpg
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.postgres import Cluster
from benchmarks.processes import BenchmarkError, free_port

DATABASES = ("SQLite", "PostgreSQL")

PROGRAMS = Path(sys.executable).parent
"""The folder of this tree's `jobledger-server`."""

START_SECONDS = 30.0
POLL_SECONDS = 0.002

# Every commit waits for the disk; anything less would be another promise.
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}

_SERVING = health_pb2.HealthCheckResponse.SERVING
_SERVICE = health_pb2.HealthCheckRequest(service="jobledger.v1.JobService")


@dataclass(frozen=True)
class Database:
    """A database with its schema and no jobs. `pid` is its own process, if it has one."""

    name: str
    folder: Path
    url: str
    pid: int | None = None

    def feed_seq(self) -> int:
        """Return how many changes are committed, as a connection of our own sees it."""
        if self.pid is not None:
            return int(asyncio.run(_fetch_value(self.url, "SELECT seq FROM feed")))
        connection = sqlite3.connect(f"file:{self.file}?mode=ro", uri=True)
        try:
            (seq,) = connection.execute("SELECT seq FROM feed").fetchone()
        finally:
            connection.close()
        return int(seq)

    @property
    def file(self) -> str:
        """The file of an SQLite database."""
        return self.url.removeprefix("sqlite:///")


@contextmanager
def new_database(
    name: str, folder: Path, *, cluster: Cluster | None = None, programs: Path = PROGRAMS
) -> Iterator[Database]:
    """Have a new database for as long as the block lasts. Raises BenchmarkError.

    Args:
        name: one of DATABASES.
        folder: where its own folder is made.
        cluster: where to make a database of PostgreSQL; without it in a cluster of its own.
        programs: the folder of the `jobledger-server` that makes the schema.
    """
    folder = Path(tempfile.mkdtemp(dir=folder))
    with ExitStack() as stack:
        if name == "PostgreSQL":
            cluster = cluster or stack.enter_context(Cluster())
            database = Database(name, folder, cluster.create_database(), cluster.pid)
            asyncio.run(check_durability(database.url))
        else:
            database = Database(name, folder, f"sqlite:///{folder / 'jobledger.db'}")
        migrate = [str(programs / "jobledger-server"), "migrate", "--database", database.url]
        done = subprocess.run(migrate, check=False, capture_output=True, text=True)
        if done.returncode:
            raise BenchmarkError(f"{name} cannot be migrated: {done.stderr}")
        yield database


class Server:
    """`jobledger-server serve` on one port and one database, through all its restarts.

    A context manager: the server runs as long as the block does.

    Args:
        programs: the folder of the `jobledger-server` that is started.
        url: of the database, where it is reached by another way than its own.
    """

    def __init__(
        self,
        database: Database,
        *arguments: str,
        programs: Path = PROGRAMS,
        environment: Mapping[str, str] | None = None,
        url: str | None = None,
    ) -> None:
        self.database = database
        self._port = free_port()
        self.target = f"127.0.0.1:{self._port}"
        self._command = [
            *(str(programs / "jobledger-server"), "serve", "--listen", self.target),
            *("--database", url or database.url, *arguments),
        ]
        self._environment = {**os.environ, **(environment or {})}
        self._log = Path(tempfile.mkdtemp(dir=database.folder)) / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def start(self) -> float:
        """Start it; return the seconds until it is SERVING. Raises BenchmarkError."""
        begin = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        try:
            # By a socket first: a channel that finds no one would try again much later.
            self._wait_until(self._listens)
            with grpc.insecure_channel(
                self.target, [("grpc.use_local_subchannel_pool", 1)]
            ) as channel:
                health = health_pb2_grpc.HealthStub(channel)
                self._wait_until(lambda: _serves(health))
        except BaseException:
            self.kill()
            raise
        return time.monotonic() - begin

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL). Does nothing to one that does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _wait_until(self, ready: Callable[[], bool]) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = self._log.read_text(errors="replace")[-4000:]
                raise BenchmarkError(f"a server is not SERVING; its log:\n{log}")
            time.sleep(POLL_SECONDS)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port)).close()
        except ConnectionRefusedError:
            return False
        return True


@contextmanager
def serving(database: str, folder: Path, *arguments: str) -> Iterator[Server]:
    """Serve on a new database for as long as the block lasts."""
    with new_database(database, folder) as made, Server(made, *arguments) as server:
        yield server


def _serves(health: health_pb2_grpc.HealthStub) -> bool:
    try:
        serving: bool = health.Check(_SERVICE, timeout=START_SECONDS).status == _SERVING
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.NOT_FOUND:  # the service has not been named yet
            return False
        raise BenchmarkError(f"a server that starts answers {error.code()}") from None
    return serving


async def check_durability(url: str) -> None:
    """Raise BenchmarkError unless every acknowledged commit is on the disk."""
    for name, wanted in _DURABLE.items():
        if (found := await _fetch_value(url, f"SHOW {name}")) != wanted:
            raise BenchmarkError(f"PostgreSQL runs with {name}={found}, not {wanted}")


async def _fetch_value(url: str, query: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()
