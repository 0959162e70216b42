"""SQLite: one file, one writer at a time, the machine's own clock."""

import json
import sqlite3
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any

import aiosqlite
from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Select,
    Table,
    bindparam,
    event,
    func,
    literal,
    select,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from jobledger_server.domain.job import Instant, JobId
from jobledger_server.sql.dialect import BadDatabaseUrl, Database, claimable
from jobledger_server.sql.driver import Deletion, Driver, Writes, Writing
from jobledger_server.sql.job_cache import Mark
from jobledger_server.sql.rows import Row, labels_from_text

BUSY_SECONDS = 4
"""How long a statement waits for another process's lock before the database counts as away."""

MIGRATION_BUSY_SECONDS = 24 * 3600
"""The same for a migration, which nobody waits for."""

OLDEST = (3, 35)
"""The first version that has RETURNING."""

READERS = 4

LISTS = 2
"""Connections for lists, which take longer than all other reads."""

ROWS_AT_ONCE = 64
"""Rows that one statement writes; a power of two."""

# A transaction that reads first and then writes would fail, without waiting, where another
# process wrote in between: take the lock at once.
BEGIN = "BEGIN IMMEDIATE"

_TAKE_PLACES = (
    "UPDATE feed SET seq = seq + ? RETURNING seq, (SELECT data_version FROM pragma_data_version)"
)


class _Sqlite:
    """See `dialect.Dialect`."""

    name = "sqlite"
    # An integer beyond 64 bits, or what is no text: the driver says so in Python's words.
    conflicts: tuple[type[Exception], ...] = (
        sqlite3.IntegrityError,
        sqlite3.DataError,
        OverflowError,
        UnicodeEncodeError,
    )
    driver_errors: tuple[type[Exception], ...] = (sqlite3.Error,)
    single_statement: Mapping[str, Any] = {"without_begin": True}
    snapshot: Mapping[str, Any] = {}
    close_timeout: float | None = None
    database_identity: ColumnElement[str] = literal(
        ""
    )  # a file knows nothing of copies: see lock.py

    def __init__(self) -> None:
        self._age = _Age()

    def one_of(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        rows = func.json_each(bindparam(name)).table_valued("value")
        return column.in_(select(rows.c.value))

    def with_pairs(
        self,
        statement: Select[Any],
        first: ColumnElement[Any],
        second: ColumnElement[Any],
        name: str,
    ) -> Select[Any]:
        rows = func.json_each(bindparam(name)).table_valued("value")
        pairs = select(
            func.json_extract(rows.c.value, "$[0]"), func.json_extract(rows.c.value, "$[1]")
        )
        return statement.where(tuple_(first, second).in_(pairs))

    def bind_list(self, name: str, values: Collection[str]) -> dict[str, Any]:
        return {name: json.dumps(list(values))}

    def bind_pairs(self, name: str, values: Collection[tuple[str, str]]) -> dict[str, Any]:
        return {name: json.dumps(list(values))}

    def locked(self, statement: Select[Any], *, skip: bool = False) -> Select[Any]:  # noqa: ARG002
        return statement  # the transaction has the whole file: it began with BEGIN IMMEDIATE

    def find_claimable(
        self,
        limits: Mapping[str, int],
        limit: int,
        *,
        lock: bool,  # noqa: ARG002
    ) -> tuple[str, Sequence[Any]]:
        now = machine_clock()
        # One of a few texts, each of which the driver prepares once: no job has an empty type.
        size = 1 << (len(limits) - 1).bit_length()
        wanted = [*limits.items(), *[("", 0)] * (size - len(limits))]
        values = [value for job_type, count in wanted for value in (job_type, now, count)]
        return _claimable(size), [*values, limit]

    def insertion(self, table: Table, columns: Sequence[str]) -> Writing:
        insertion = (
            f"INSERT INTO {table.name} ({', '.join(columns)}) "  # noqa: S608
            "SELECT * FROM {rows} WHERE column1 IS NOT NULL"
        )
        return _of_rows(len(columns), insertion)

    def change(self, table: Table, key: Column[Any], columns: Sequence[str]) -> Writing:
        # The key comes first in each row, as it does on PostgreSQL.
        values = ", ".join(f"{column} = column{n}" for n, column in enumerate(columns, start=2))
        change = (
            f"UPDATE {table.name} SET {values} "  # noqa: S608
            f"FROM {{rows}} WHERE {table.name}.{key.name} = column1"
        )
        return _of_rows(1 + len(columns), change)

    def driver(self, connection: Any) -> Driver:
        return _SqliteDriver(connection, self._age)

    @property
    def clock(self) -> ColumnElement[int]:
        return bindparam("clock", callable_=machine_clock, type_=BigInteger)

    async def now(self, connection: AsyncConnection) -> Instant:  # noqa: ARG002
        return Instant(machine_clock())


class _Age:
    """Tells whether anybody but the batches has written to the file: then a new age begins.

    Another connection's commits change `data_version`. What else the one that writes has
    written, for retention, is among its `total_changes`.
    """

    def __init__(self) -> None:
        self.number = 0
        # The connection is only remembered: whoever lets go of it is to be the last to have it.
        self._expected: tuple[weakref.ref[aiosqlite.Connection], int, int] | None = None

    def look(self, connection: aiosqlite.Connection, version: int, changes: int) -> None:
        """Compare what a transaction finds with what the last batch left."""
        if self._expected != (weakref.ref(connection), version, changes):
            self.number += 1

    def end(self) -> None:
        """Let a new age begin, whatever the next transaction finds."""
        self._expected = None

    def expect(self, connection: aiosqlite.Connection, version: int, changes: int) -> None:
        """Let the next one find this, if nobody else writes."""
        self._expected = weakref.ref(connection), version, changes


class _SqliteDriver:
    """See `driver.Driver`. Each call is one errand of the connection's thread."""

    def __init__(self, connection: aiosqlite.Connection, age: _Age) -> None:
        self.committing = False
        self._connection = connection
        self._age = age
        self._changes = 0
        self._version: int | None = None

    def lost(self, error: BaseException) -> bool:  # noqa: ARG002
        return False  # a file does not hang up

    def terminate(self) -> None: ...

    async def interrupt(self) -> None:
        await self._connection.interrupt()

    async def begin(self) -> None:
        await self._connection.execute_fetchall(BEGIN)
        self._changes = self._connection.total_changes

    async def now(self) -> Instant:
        return Instant(machine_clock())

    async def fetch(self, statement: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        return list(await self._connection.execute_fetchall(statement, values))

    async def unchanged(self, marks: Mapping[JobId, Mark]) -> Collection[JobId]:
        ((version,),) = await self._connection.execute_fetchall("PRAGMA data_version")
        self._look(version)
        return [job_id for job_id, mark in marks.items() if mark == self._age.number]

    async def append(
        self,
        count: int,
        writes: Callable[[int], Writes],
        *,
        deletion: Deletion | None,
        new: int,  # noqa: ARG002
        last: bool,  # noqa: ARG002
    ) -> tuple[int, Mark]:
        ((place, version),) = await self._connection.execute_fetchall(_TAKE_PLACES, (count,))
        if deletion is not None:
            await self._connection.execute_fetchall(*deletion)
        # One after the other: after some errors (the disk is full) SQLite has rolled back by
        # itself, and whatever came then would be a transaction of its own.
        for writing, rows in writes(place - count):
            await self._write(writing, rows)
        self._look(version)
        self._age.expect(self._connection, version, self._connection.total_changes)
        return place, self._age.number

    def _look(self, version: int) -> None:
        """See once in a transaction, which has the file, whether somebody wrote before it."""
        if self._version is None:
            self._version = version
            self._age.look(self._connection, version, self._changes)

    async def _write(self, writing: Writing, rows: Sequence[Row]) -> None:
        # The driver lets go of the interpreter for each statement, and has to wait for the event
        # loop to get it back: for each row that is too often.
        if len(rows) > ROWS_AT_ONCE:
            starts = range(0, len(rows), ROWS_AT_ONCE)
            parts = [_values(rows[start : start + ROWS_AT_ONCE], ROWS_AT_ONCE) for start in starts]
            await self._connection.executemany(writing(ROWS_AT_ONCE), parts)
        else:
            # One of a few texts, each of which the driver prepares once: to a power of two.
            size = 1 << (len(rows) - 1).bit_length()
            await self._connection.execute_fetchall(writing(size), _values(rows, size))

    async def commit(self) -> None:
        self.committing = True
        await self._connection.commit()

    async def rollback(self) -> None:
        # Where it was the commit that failed, it may have been made all the same.
        self._age.end()
        await self._connection.rollback()


@cache
def _claimable(types: int) -> str:
    """Return the statement that finds what is claimable of so many types."""
    columns, condition = claimable("length")
    of_type = (
        f"SELECT * FROM (SELECT {columns} FROM jobs WHERE job_type = ? "  # noqa: S608
        f"AND {condition} ? ORDER BY create_time, id LIMIT ?)"
    )
    each = " UNION ALL ".join([of_type] * types)
    return f"SELECT id, job_type, size FROM ({each}) ORDER BY create_time, id LIMIT ?"  # noqa: S608


def _of_rows(columns: int, statement: str) -> Writing:
    """Return a statement about rows of so many columns, whose values are bound.

    SQLite names them column1, column2 and so on. A row of nothing but NULL is none: it
    fills up a statement for more rows than there are.
    """
    row = f"({', '.join('?' * columns)})"

    @cache
    def writing(size: int) -> str:
        return statement.format(rows=f"(VALUES {', '.join([row] * size)})")

    return writing


def _values(rows: Sequence[Row], size: int) -> list[Any]:
    """Return the values of rows, filled up to so many rows."""
    missing = (size - len(rows)) * len(rows[0])
    return [*chain.from_iterable(rows), *[None] * missing]


def machine_clock() -> int:
    return time.time_ns() // 1000


def open_sqlite(url: URL, *, unlimited: bool = False) -> Database:
    if sqlite3.sqlite_version_info < OLDEST:
        raise BadDatabaseUrl(
            f"SQLite is version {sqlite3.sqlite_version} here, and this server needs "
            f"{'.'.join(map(str, OLDEST))} or newer: use a newer Python, or PostgreSQL"
        )
    # One connection writes and does every checkpoint: before SQLite 3.51.3 a second one that
    # does either can corrupt the file (https://sqlite.org/wal.html, "The WAL-reset bug").
    writer = create_async_engine(
        url,
        pool_size=1,
        max_overflow=0,
        json_deserializer=labels_from_text,
        hide_parameters=True,  # they are the callers', and errors go to the log
        pool_reset_on_return=None,  # whoever writes has ended the transaction, one way or the other
    )
    reader, lists = (
        create_async_engine(
            url,
            pool_size=size,
            max_overflow=0,
            json_deserializer=labels_from_text,
            hide_parameters=True,  # they are the callers', and errors go to the log
            pool_reset_on_return=None,
        )
        for size in (READERS, LISTS)
    )
    busy_seconds = MIGRATION_BUSY_SECONDS if unlimited else BUSY_SECONDS
    busy = f"PRAGMA busy_timeout={busy_seconds * 1000}"
    _on_sqlite_connect(
        writer,
        (
            busy,
            "PRAGMA journal_mode=WAL",
            # An acknowledged commit survives a power loss, not only a crash.
            "PRAGMA synchronous=FULL",
            # What a statement would have to undo alone is kept in memory: else nearly each that
            # writes many rows makes a file for it.
            "PRAGMA temp_store=MEMORY",
            "PRAGMA foreign_keys=ON",
        ),
        begin=BEGIN,
        busy_seconds=busy_seconds,
    )
    for engine in (reader, lists):
        _on_sqlite_connect(
            engine, (busy, "PRAGMA query_only=ON"), begin="BEGIN", busy_seconds=busy_seconds
        )
    return Database(url, writer, reader, lists, _Sqlite())


def _on_sqlite_connect(
    engine: AsyncEngine, pragmas: Iterable[str], *, begin: str, busy_seconds: int
) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        cursor = connection.cursor()
        for pragma in pragmas:
            _execute_when_unlocked(cursor, pragma, busy_seconds)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def began(connection: Connection) -> None:
        if not connection.get_execution_options().get("without_begin"):
            connection.exec_driver_sql(begin)


def _execute_when_unlocked(cursor: Any, pragma: str, busy_seconds: int) -> None:
    """Wait for the lock as the busy timeout would: changing the journal mode does not honor it."""
    deadline = time.monotonic() + busy_seconds
    while True:
        try:
            cursor.execute(pragma)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)  # once in a database's life, when several create it at once
        else:
            return
