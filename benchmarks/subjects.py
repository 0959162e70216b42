"""What is measured: the real server, as anybody would start it, on each database."""

import asyncio
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from processes import BenchmarkError, parent_of

from postgres_server import PostgresServer
from server_process import ServerProcess

DATABASES = ("SQLite", "PostgreSQL")

# Every commit waits for the disk; anything less would be another promise.
_DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


@dataclass(frozen=True)
class Subject:
    """A running server and its database. `database_pid` is the database's own process, if any."""

    database: str
    target: str
    pid: int
    url: str
    database_pid: int | None = None

    def feed_seq(self) -> int:
        """Return how many changes are committed, as a connection of our own sees it."""
        if self.database_pid is None:
            file = self.url.removeprefix("sqlite:///")
            connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
            try:
                (seq,) = connection.execute("SELECT seq FROM feed").fetchone()
            finally:
                connection.close()
        else:
            seq = asyncio.run(_read_feed(self.url))
        return int(seq)


@contextmanager
def serving(database: str, folder: Path, *arguments: str) -> Iterator[Subject]:
    """Serve on a new database for as long as the block lasts."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    with ExitStack() as stack:
        url, database_pid = f"sqlite:///{folder / 'jobledger.db'}", None
        if database == "PostgreSQL":
            url, database_pid = _new_postgres(stack)
        server = ServerProcess(folder, database=url, arguments=arguments)
        try:
            server.start()
        except AssertionError as error:
            raise BenchmarkError(str(error)) from None
        stack.callback(server.kill)
        yield Subject(database, server.target, server.pid, url, database_pid)


def _new_postgres(stack: ExitStack) -> tuple[str, int]:
    postgres = PostgresServer()
    stack.callback(postgres.close)
    url = postgres.create_database()
    pid = asyncio.run(_inspect(url))
    program = str(Path(sys.executable).with_name("jobledger-server"))
    migrate = [program, "migrate", "--database", url]
    done = subprocess.run(migrate, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchmarkError(f"PostgreSQL cannot be migrated: {done.stderr}")
    return url, pid


async def _inspect(url: str) -> int:
    """See that the server keeps what it acknowledges; return the process id of its parent."""
    connection = await asyncpg.connect(url)
    try:
        for name, wanted in _DURABLE.items():
            if (found := await connection.fetchval(f"SHOW {name}")) != wanted:
                raise BenchmarkError(f"PostgreSQL runs with {name}={found}, not {wanted}")
        return parent_of(await connection.fetchval("SELECT pg_backend_pid()"))
    finally:
        await connection.close()


async def _read_feed(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        seq: int = await connection.fetchval("SELECT seq FROM feed")
    finally:
        await connection.close()
    return seq
