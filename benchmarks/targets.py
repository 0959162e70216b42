"""What is measured: databases, and the real server on them, as anyone would start it."""

import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks import postgres
from benchmarks.processes import BenchmarkError, end, free_port, listens, start

DATABASES = ("SQLite", "PostgreSQL")

PROGRAMS = Path(sys.executable).parent
"""The folder of this tree's `jobledger-server`."""

_SERVICE = health_pb2.HealthCheckRequest(service="jobledger.v1.JobService")


@dataclass(frozen=True)
class Database:
    """A database. `cluster` is where it is, if it is of PostgreSQL."""

    name: str
    folder: Path
    url: str
    cluster: postgres.Cluster | None = None

    @property
    def pid(self) -> int | None:
        """Its own process, if it has one."""
        return None if self.cluster is None else self.cluster.pid

    @property
    def file(self) -> Path:
        """The file of an SQLite database."""
        return Path(self.url.removeprefix("sqlite:///"))

    def fetch(self, query: str) -> list[Any]:
        """Return the rows of a query, made over a connection of our own."""
        if self.cluster is not None:
            return postgres.fetch(self.url, query)
        with closing(sqlite3.connect(f"file:{self.file}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    def execute(self, *statements: str) -> None:
        """Run statements, one after the other, over a connection of their own."""
        if self.cluster is not None:
            postgres.execute(self.url, *statements)
            return
        with closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    def id_of(self, text: str) -> str:
        """Return an expression for an id whose text is that of the expression."""
        return text if self.cluster is None else f"CAST({text} AS UUID)"

    def feed_seq(self) -> int:
        """Return how many changes are committed."""
        known = (
            "SELECT 1 FROM sqlite_master WHERE name = 'changes'"
            if self.cluster is None
            else "SELECT 1 FROM information_schema.tables WHERE table_name = 'changes'"
        )
        if not self.fetch(known):  # `compare` with a revision that still counts in `feed`
            return int(self.fetch("SELECT seq FROM feed")[0][0])
        return int(self.fetch("SELECT coalesce(max(seq), 0) FROM changes")[0][0])


@contextmanager
def new_database(
    name: str, folder: Path, cluster: postgres.Cluster | None = None, programs: Path = PROGRAMS
) -> Iterator[Database]:
    """Have a new database for as long as the block lasts. Raises BenchmarkError.

    Args:
        name: one of DATABASES.
        folder: where its own folder is made.
        cluster: where a database of PostgreSQL is made; without it in a cluster of its own.
        programs: the folder of the `jobledger-server` that makes the schema.
    """
    if name == "PostgreSQL" and cluster is None:
        with postgres.cluster() as own, new_database(name, folder, own, programs) as database:
            yield database
        return
    folder = Path(tempfile.mkdtemp(dir=folder))
    if cluster is None or name == "SQLite":
        # The server makes it when it starts.
        yield Database(name, folder, f"sqlite:///{folder / 'jobledger.db'}")
        return
    database = Database(name, folder, cluster.create_database(), cluster)
    migrate = [str(programs / "jobledger-server"), "migrate", "--database", database.url]
    done = subprocess.run(migrate, check=False, capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(f"{name} cannot be migrated: {done.stderr}")
    yield database


class Server:
    """`jobledger-server serve` on one port and one database, through all its restarts.

    A context manager: the server runs as long as the block does.

    Args:
        command: what serves, where it is not this tree's `jobledger-server`.
        url: of the database, where it is reached by another way than its own.
    """

    def __init__(
        self,
        database: Database,
        *arguments: str,
        command: Sequence[str] = (str(PROGRAMS / "jobledger-server"),),
        environment: Mapping[str, str] | None = None,
        url: str | None = None,
    ) -> None:
        self.database = database
        self._port = free_port()
        self.target = f"127.0.0.1:{self._port}"
        self._command = [
            *(*command, "serve", "--listen", self.target),
            *("--database", url or database.url, *arguments),
        ]
        self._environment = environment
        self._log = Path(tempfile.mkdtemp(dir=database.folder)) / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def start(self) -> float:
        """Start it; return the seconds until it is SERVING. Raises BenchmarkError."""
        begin = time.monotonic()
        self._process = start(self._command, self._log, self._serves, self._environment)
        return time.monotonic() - begin

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL). Does nothing to one that does not run."""
        if self._process is not None:
            end(self._process)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _serves(self) -> bool:
        # By a socket first: a channel that finds no one would try again much later.
        if not listens(self._port):
            return False
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self.target, options) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(_SERVICE, timeout=30)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.NOT_FOUND:  # the service is not named yet
                    return False
                raise BenchmarkError(f"a server that starts answers {error.code()}") from None
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
