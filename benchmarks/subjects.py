"""What is measured: the real server, as anybody would start it, on each database."""

import asyncio
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from processes import BenchmarkError, parent_of

from tests.support.postgres_server import PostgresServer
from tests.support.server_process import ServerProcess

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


@dataclass(frozen=True)
class Database:
    """An empty database of the newest schema. `pid` is its own process, if it has one."""

    name: str
    folder: Path
    url: str
    pid: int | None = None


@contextmanager
def serving(database: str, folder: Path, *arguments: str) -> Iterator[Subject]:
    """Serve on a new database for as long as the block lasts."""
    with new_database(database, folder) as made, serving_on(made, *arguments) as subject:
        yield subject


@contextmanager
def new_database(name: str, folder: Path) -> Iterator[Database]:
    """Have a new database for as long as the block lasts."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    with ExitStack() as stack:
        if name == "PostgreSQL":
            postgres = PostgresServer()
            stack.callback(postgres.close)
            url = postgres.create_database()
            database = Database(name, folder, url, asyncio.run(_inspect(url)))
        else:
            database = Database(name, folder, f"sqlite:///{folder / 'jobledger.db'}")
        _migrate(database)
        yield database


@contextmanager
def serving_on(
    database: Database, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[Subject]:
    """Serve on a database, beside others or alone, for as long as the block lasts."""
    server = ServerProcess(
        Path(tempfile.mkdtemp(dir=database.folder)),
        database=database.url,
        arguments=arguments,
        environment=environment,
    )
    try:
        server.start()
    except AssertionError as error:
        raise BenchmarkError(str(error)) from None
    try:
        yield Subject(database.name, server.target, server.pid, database.url, database.pid)
    finally:
        server.kill()


def _migrate(database: Database) -> None:
    program = str(Path(sys.executable).with_name("jobledger-server"))
    migrate = [program, "migrate", "--database", database.url]
    done = subprocess.run(migrate, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchmarkError(f"{database.name} cannot be migrated: {done.stderr}")


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
