"""Fills a database by plain SQL, before anything serves it: jobs as they stand after some time.

Everything about a job follows from its number, which counts from 1 in the order of
creation. The indexes are taken off for as long as it takes and put back at the end.
"""

import asyncio
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import asyncpg

from benchmarks.filling_rows import POSTGRESQL, SQLITE, Dialect, Rows, job_id, job_type, owner
from benchmarks.indexes import without_indexes, without_indexes_on_sqlite
from benchmarks.processes import BenchmarkError
from benchmarks.subjects import Database

CHUNK = 20_000
"""Jobs whose rows are written together: so the steps of a job lie near each other."""


@dataclass(frozen=True)
class Filling:
    """What a database was filled with, and how many seconds that took."""

    rows: Rows
    seconds: float

    def job(self, number: int) -> tuple[str, str, str]:
        """Return the id, the owner and the type of a job."""
        return job_id(self.rows, number), owner(self.rows, number), job_type(self.rows, number)


def fill_all(
    databases: Sequence[Database], counts: Mapping[str, int], *job_types: str
) -> list[Filling]:
    """Make so many jobs of each status, their types in turn, in every database at once.

    What has ended is the oldest, what waits is the newest. Raises BenchmarkError.
    """
    with ThreadPoolExecutor() as pool:
        fillings = [pool.submit(_fill, database, counts, job_types) for database in databases]
    return [_result(filling) for filling in fillings]


def _result(filling: Future[Filling]) -> Filling:
    try:
        return filling.result()
    except Exception as error:
        raise BenchmarkError(f"a database cannot be filled: {error}") from error


def _fill(database: Database, counts: Mapping[str, int], job_types: Sequence[str]) -> Filling:
    begin = time.monotonic()
    rows = Rows(counts, job_types, now=time.time_ns() // 1000)
    if database.name == "SQLite":
        _fill_sqlite(database.url.removeprefix("sqlite:///"), rows)
    else:
        asyncio.run(_fill_postgresql(database.url, rows))
    return Filling(rows, time.monotonic() - begin)


def _fill_sqlite(file: str, rows: Rows) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        # Of this connection alone. If it fails nobody wants the file.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-1000000", "threads=2"):
            connection.execute(f"PRAGMA {pragma}")
        with without_indexes_on_sqlite(connection):
            connection.execute("BEGIN")
            for statement in _statements(rows, SQLITE):
                connection.execute(statement)
            connection.execute("COMMIT")
        # No ANALYZE: the server never does that either.
        connection.execute("PRAGMA journal_mode=WAL")


async def _fill_postgresql(url: str, rows: Rows) -> None:
    connection = await asyncpg.connect(url)
    try:
        # Of this connection alone.
        await connection.execute("SET synchronous_commit = off")
        await connection.execute("SET maintenance_work_mem = '1GB'")
        async with without_indexes(connection):
            for statement in _statements(rows, POSTGRESQL):
                await connection.execute(statement)
        await connection.execute("VACUUM (ANALYZE)")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


def _statements(rows: Rows, dialect: Dialect) -> Iterator[str]:
    for first in range(1, rows.jobs + 1, CHUNK):
        yield from rows.insertions(dialect, first, min(first + CHUNK - 1, rows.jobs))
    yield f"UPDATE feed SET seq = {rows.last_place}"
