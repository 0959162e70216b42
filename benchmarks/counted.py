"""Counts what a server asks of its database: statements, round trips, and what is written for it.

PostgreSQL is reached through a program that counts the messages (postgres_proxy.py). SQLite has
no messages: there the server's own interpreter counts statements (tracing/sitecustomize.py).
The write-ahead log is PostgreSQL's position in its own, and the frames of SQLite's.
"""

import asyncio
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import asyncpg

from benchmarks.postgres import Cluster
from benchmarks.processes import HERE, read_line
from benchmarks.targets import Database, Server

LSN = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"


@dataclass(frozen=True)
class Counts:
    """What was counted up to a moment: `wal` in bytes. There are no round trips to SQLite."""

    statements: int
    round_trips: int | None
    wal: int


class Counter(Protocol):
    """Counts what one server does."""

    @property
    def server(self) -> Server: ...

    def read(self) -> Counts: ...


@contextmanager
def counted_server(
    database: Database, cluster: Cluster | None, programs: Path
) -> Iterator[Counter]:
    """Serve on a database, counted, for as long as the block lasts.

    Args:
        database: what is served, in its cluster, if it has one.
        cluster: where a database of PostgreSQL is.
        programs: the folder of the `jobledger-server` that serves.
    """
    if database.pid is None:
        trace = database.folder / "trace"
        environment = {
            "PYTHONPATH": str(HERE / "tracing"),
            "JOBLEDGER_TRACE": str(trace),
        }
        with (
            Server(database, programs=programs, environment=environment) as server,
            _Frames(Path(f"{database.file}-shm")) as frames,
        ):
            yield _OnSqlite(server, trace, frames)
        return
    assert cluster is not None, "a database of PostgreSQL is in a cluster"
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
    frames: "_Frames"

    def read(self) -> Counts:
        # A byte for each statement.
        return Counts(self.trace.stat().st_size, None, self.frames.bytes())


class _Frames:
    """Counts the frames of an SQLite WAL, which begins anew after a checkpoint.

    Its index has the number of the last frame. A thread reads it so often that at most a few
    frames before each new beginning are missed.
    """

    POLL_SECONDS = 0.002
    NUMBER = struct.Struct("=I")
    AT = 16
    """Where the number is in the file: `mxFrame` in https://sqlite.org/walformat.html."""

    BYTES = 4096 + 24
    """Of a frame: a page and its header."""

    def __init__(self, index: Path) -> None:
        self._file = index.open("rb", buffering=0)
        self._last = self._frames = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll)

    def bytes(self) -> int:
        """Return how much has been written so far."""
        with self._lock:
            last = self.NUMBER.unpack(os.pread(self._file.fileno(), self.NUMBER.size, self.AT))[0]
            self._frames += last - self._last if last >= self._last else last
            self._last = last
            return self._frames * self.BYTES

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._file.close()

    def _poll(self) -> None:
        while not self._stopped.wait(self.POLL_SECONDS):
            self.bytes()


@dataclass(frozen=True)
class _OnPostgresql:
    server: Server
    proxy: subprocess.Popen[str]

    def read(self) -> Counts:
        assert self.proxy.stdin is not None
        self.proxy.stdin.write("\n")
        self.proxy.stdin.flush()
        counted = json.loads(read_line(self.proxy, "the proxy"))
        return Counts(**counted, wal=asyncio.run(_wal(self.server.database.url)))


async def _wal(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval(LSN))
    finally:
        await connection.close()
