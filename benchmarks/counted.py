"""Counts what a server asks of its database: statements, round trips, and what is written for it.

PostgreSQL is reached through a program that counts the messages (postgres_proxy.py). SQLite has
no messages: there the server's own interpreter counts statements (tracing/sitecustomize.py).
What is written is PostgreSQL's write-ahead log, and all that an SQLite server writes to files.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import asyncpg

from benchmarks.postgres import Cluster
from benchmarks.processes import HERE, read_line
from benchmarks.targets import Database, Server

LSN = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"


@dataclass(frozen=True)
class Counts:
    """What was counted up to a moment. There are no round trips to SQLite."""

    statements: int
    round_trips: int | None
    written: int


class Counter(Protocol):
    """Counts what one server does."""

    @property
    def server(self) -> Server: ...

    def read(self) -> Counts: ...


@contextmanager
def counted_server(database: Database, cluster: Cluster, programs: Path) -> Iterator[Counter]:
    """Serve on a database, counted, for as long as the block lasts."""
    if database.pid is None:
        trace = database.folder / "trace"
        environment = {
            "PYTHONPATH": str(HERE / "tracing"),
            "JOBLEDGER_TRACE": str(trace),
        }
        with Server(database, programs=programs, environment=environment) as server:
            yield _OnSqlite(server, trace)
        return
    host, port = cluster.address
    command = [sys.executable, "-m", "benchmarks.postgres_proxy", host, str(port)]
    with subprocess.Popen(
        command, cwd=HERE.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as proxy:
        try:
            counted_port = read_line(proxy, "the proxy").strip()
            url = database.url.replace(f":{port}/", f":{counted_port}/")
            with Server(database, programs=programs, url=url) as server:
                yield _OnPostgresql(server, proxy)
        finally:
            proxy.kill()


@dataclass(frozen=True)
class _OnSqlite:
    server: Server
    trace: Path

    def read(self) -> Counts:
        # A byte for each statement.
        statements = self.trace.stat().st_size
        io = Path(f"/proc/{self.server.pid}/io").read_text("ascii")
        written = dict(line.split(": ") for line in io.splitlines())["wchar"]
        return Counts(statements, None, int(written) - statements)


@dataclass(frozen=True)
class _OnPostgresql:
    server: Server
    proxy: subprocess.Popen[str]

    def read(self) -> Counts:
        assert self.proxy.stdin is not None
        self.proxy.stdin.write("\n")
        self.proxy.stdin.flush()
        counted = json.loads(read_line(self.proxy, "the proxy"))
        return Counts(**counted, written=asyncio.run(_written(self.server.database.url)))


async def _written(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval(LSN))
    finally:
        await connection.close()
