"""Counts what a server asks of its database: statements, round trips, and what is written for it.

Counted on a server that nobody else calls, so that a call that comes alone is a batch of its own.
PostgreSQL is reached through a proxy that counts messages. SQLite has no messages: there the
server's own interpreter counts statements.
"""

import socket
import socketserver
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import BATCH
from benchmarks.measure import Work, lifecycles, measure, updates
from benchmarks.processes import Generator
from benchmarks.stats import Kind
from benchmarks.targets import PROGRAMS, Database, Server

JOBS = 10

STATEMENTS = {b"Q", b"E"}
"""Messages of PostgreSQL's protocol: a simple query, and the execution of a prepared one."""

ROUND_TRIPS = {b"Q", b"S", b"H", b"c"}
"""A simple query, Sync, Flush, and the end of a COPY: a client waits for their answers."""

SSL_REQUEST = 80877103

CALLS = 50
"""One after the other: the server's own queries during them are few."""

SECONDS = 0.2
"""Of updates over a stream."""

ALONE = (
    Work.alone("CreateJob", "create", CALLS),
    Work.alone("UpdateProgress", "progress", CALLS),
    Work.alone("GetJob", "get", CALLS, changes=0),
    Work.alone(f"BatchCreateJobs of {BATCH}", "create_batch", 2, unit="job"),
    Work.alone("ClaimJobs", "claim", CALLS),
    updates(1, 1),
    lifecycles(10, 1, title="lifecycle by unary calls", unary=True),
    lifecycles(10, 1, title="lifecycle without an asset", asset=False),
)
"""What is counted: each call comes when the one before it was answered.

Older servers understand all of it: those that have no `NewAsset` cannot read one on a stream.
"""


TRACED_SERVER = """
import os, sqlite3
connect = sqlite3.connect
trace = os.open(os.environ["JOBLEDGER_TRACE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def traced(*arguments, **options):
    connection = connect(*arguments, **options)
    connection.set_trace_callback(lambda _: os.write(trace, b"."))
    return connection
sqlite3.connect = traced
from jobledger_server.__main__ import main
main()
"""
"""`jobledger-server`, but it writes a byte to a file for each statement that it gives to SQLite."""


@dataclass(frozen=True)
class Counting:
    """A server that is counted."""

    server: Server
    _proxy: "_Proxy | None"
    _trace: Path

    def read(self) -> dict[Kind, int]:
        """Return what was counted until now. There are no round trips to SQLite."""
        database = self.server.database
        if self._proxy is None:
            wal = database.file.with_name(f"{database.file.name}-wal").stat().st_size
            statements = self._trace.stat().st_size  # a byte for each
            return {Kind.STATEMENTS: statements, Kind.WAL: wal}
        ((wal,),) = database.fetch("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        return {**self._proxy.counts, Kind.WAL: int(wal)}


@contextmanager
def counting(
    database: Database, programs: Path = PROGRAMS, arguments: Sequence[str] = ()
) -> Iterator[Counting]:
    """Serve on a database, counted, for as long as the block lasts.

    Args:
        database: a new one.
        programs: the folder of the `jobledger-server` that serves.
        arguments: more of its arguments.
    """
    trace = database.folder / "trace"
    if database.cluster is None:
        traced = (str(programs / "python"), "-c", TRACED_SERVER)
        environment = {"JOBLEDGER_TRACE": str(trace)}
        with (
            Server(database, *arguments, command=traced, environment=environment) as server,
            closing(sqlite3.connect(database.file, isolation_level=None)) as reader,
        ):
            # A reader that never ends: so the log never begins anew, and grows by what is written.
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM feed").fetchone()
            yield Counting(server, None, trace)
        return
    with _Proxy(database.cluster.port) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url = database.url.replace(f":{database.cluster.port}/", f":{proxy.server_address[1]}/")
        command = (str(programs / "jobledger-server"),)
        with Server(database, *arguments, command=command, url=url) as server:
            yield Counting(server, proxy, trace)
        proxy.shutdown()


def count(
    database: Database, generators: Sequence[Generator], programs: Path = PROGRAMS
) -> dict[tuple[Kind, str, str], float]:
    """Return what each unit of work asks of a new database, by kind, title and unit."""
    found: dict[tuple[Kind, str, str], float] = {}
    with counting(database, programs) as counted:
        generators[0].do("calls.prepare", target=counted.server.target, jobs=JOBS)
        for work in ALONE:
            for _ in range(2):  # the first time everything is done for once
                before, seq = counted.read(), database.feed_seq()
                done = measure(counted.server, generators, work, SECONDS).done
                after, changes = counted.read(), database.feed_seq() - seq
            for kind, value in after.items():
                if kind is not Kind.WAL:
                    found[kind, work.title, f"1/{work.unit}"] = (value - before[kind]) / done
                elif changes:
                    found[kind, work.title, "bytes/change"] = (value - before[kind]) / changes
    return found


class _Proxy(socketserver.ThreadingTCPServer):
    """Passes connections on to PostgreSQL, and counts the messages of their clients."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.upstream = port
        self.counts = {Kind.STATEMENTS: 0, Kind.ROUND_TRIPS: 0}


class _Passing(socketserver.StreamRequestHandler):
    server: _Proxy

    def handle(self) -> None:
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with (
            suppress(ConnectionError),
            socket.create_connection(("127.0.0.1", self.server.upstream)) as database,
        ):
            database.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._answer, args=(database,), daemon=True).start()
            # A connection begins with messages that have no type: a request for TLS, the start.
            started = False
            while head := self.rfile.read(5 if started else 4):
                size = int.from_bytes(head[-4:], "big") - 4
                body = self.rfile.read(size)
                if started:
                    self.server.counts[Kind.STATEMENTS] += head[:1] in STATEMENTS
                    self.server.counts[Kind.ROUND_TRIPS] += head[:1] in ROUND_TRIPS
                else:
                    started = int.from_bytes(body[:4], "big") != SSL_REQUEST
                database.sendall(head + body)

    def _answer(self, database: socket.socket) -> None:
        with suppress(OSError):
            while data := database.recv(65_536):
                self.connection.sendall(data)
            self.connection.shutdown(socket.SHUT_RDWR)
