"""The rows of new jobs, written by the driver alone: what a durable insert takes at least."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice

import asyncpg

from benchmarks.load.messages import create_requests
from benchmarks.targets import Database
from jobledger_server.domain.commands import Create
from jobledger_server.domain.decisions import create
from jobledger_server.domain.job import Instant, Payload
from jobledger_server.ledger.ids import IdSource
from jobledger_server.sql.rows import Row, job_rows

_COLUMNS = ", ".join(job_rows.columns)
_INSERT = f"INSERT INTO jobs ({_COLUMNS}) VALUES"
_SQLITE = f"{_INSERT} ({', '.join('?' for _ in job_rows.columns)})"
_POSTGRESQL = f"{_INSERT} ({', '.join(f'${n}' for n, _ in enumerate(job_rows.columns, start=1))})"


def new_rows() -> Iterator[Row]:
    """Yield rows without end, as the server makes them of create_requests."""
    ids = IdSource()
    for seq, request in enumerate(create_requests(), start=1):
        now = Instant(time.time_ns() // 1000)
        command = Create(
            user_id=request.user_id,
            job_type=request.job_type,
            parameters=Payload(request.parameters.SerializeToString()),
            labels=dict(request.labels),
            request_id=request.request_id,
        )
        decision = create(None, command, now=now, new_id=partial(ids.new_id, now))
        yield job_rows.row(decision.job, seq)


def insert_seconds(
    database: Database, rows: Iterator[Row], *, chunks: int, size: int
) -> list[float]:
    """Insert chunks of so many rows, each in a transaction; return the seconds of each.

    A first one is left out: everything is done for once.
    """
    parts = [list(islice(rows, size)) for _ in range(chunks + 1)]
    if database.name == "SQLite":
        seconds = _insert_sqlite(database.file, parts)
    else:
        seconds = asyncio.run(_insert_postgresql(database.url, parts))
    return seconds[1:]


def _insert_sqlite(file: str, parts: Sequence[Sequence[Row]]) -> list[float]:
    seconds = []
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        # As the server has it; the file is in WAL mode since it was made.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        for part in parts:
            begin = time.monotonic()
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_SQLITE, part)
            connection.execute("COMMIT")
            seconds.append(time.monotonic() - begin)
    return seconds


async def _insert_postgresql(url: str, parts: Sequence[Sequence[Row]]) -> list[float]:
    seconds = []
    connection = await asyncpg.connect(url)
    try:
        for part in parts:
            begin = time.monotonic()
            async with connection.transaction():
                await connection.executemany(_POSTGRESQL, part)
            seconds.append(time.monotonic() - begin)
    finally:
        await connection.close()
    return seconds
