"""SQLite: one file, one writer at a time, the machine's own clock."""

import json
import sqlite3
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
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
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from jobledger_server.domain.model import Instant
from jobledger_server.sql.dialect import Database, oldest_waiting
from jobledger_server.sql.driver import Driver
from jobledger_server.sql.rows import Row, labels_from_text
from jobledger_server.sql.tables import jobs

BUSY_SECONDS = 4
"""How long a statement waits for another process's lock before the database counts as away."""

READERS = 4

# A transaction that reads first and then writes would fail, without waiting, where another
# process wrote in between: take the lock at once.
BEGIN = "BEGIN IMMEDIATE"


class _Sqlite:
    """See `dialect.Dialect`."""

    name = "sqlite"
    # An integer beyond 64 bits: the driver says so in Python's words.
    conflicts: tuple[type[Exception], ...] = (
        sqlite3.IntegrityError,
        sqlite3.DataError,
        OverflowError,
    )
    faults: tuple[type[Exception], ...] = (sqlite3.ProgrammingError,)
    driver_errors: tuple[type[Exception], ...] = (sqlite3.Error,)
    single_statement: Mapping[str, Any] = {"without_begin": True}
    snapshot: Mapping[str, Any] = {}
    farewell_seconds: float | None = None
    home: ColumnElement[str] = literal("")  # a file knows nothing of copies: see lock.py

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

    def locked(self, statement: Select[Any]) -> Select[Any]:
        return statement  # the transaction has the whole file: it began with BEGIN IMMEDIATE

    def oldest_waiting(self, types: int) -> Select[Any]:
        of_type = (jobs.c.job_type == bindparam(f"job_type_{number}") for number in range(types))
        parts = (select(oldest_waiting(each, self.clock).subquery()) for each in of_type)
        oldest = union_all(*parts).subquery()
        in_order = select(oldest).order_by(oldest.c.create_time, oldest.c.id)
        return in_order.limit(bindparam("count"))

    def bind_types(self, job_types: Collection[str]) -> dict[str, Any]:
        return {f"job_type_{number}": name for number, name in enumerate(sorted(job_types))}

    def insertion(self, table: Table, columns: Sequence[str]) -> str:
        marks = ", ".join("?" * len(columns))
        return f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608

    def change(self, table: Table, key: Column[Any], columns: Sequence[str]) -> str:
        # By number: the key comes first in each row, as it does on PostgreSQL.
        values = ", ".join(f"{column} = ?{n}" for n, column in enumerate(columns, start=2))
        return f"UPDATE {table.name} SET {values} WHERE {key.name} = ?1"  # noqa: S608

    def driver(self, connection: Any) -> Driver:
        return _SqliteDriver(connection)

    @property
    def clock(self) -> ColumnElement[int]:
        return bindparam("clock", callable_=machine_clock, type_=BigInteger)

    async def now(self, connection: AsyncConnection) -> Instant:  # noqa: ARG002
        return Instant(machine_clock())


class _SqliteDriver:
    """See `driver.Driver`. Each call is one errand of the connection's thread."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    def lost(self, error: BaseException) -> bool:  # noqa: ARG002
        return False  # a file does not hang up

    def cut(self) -> None: ...

    async def begin(self) -> None:
        await self._connection.execute_fetchall(BEGIN)

    async def now(self) -> Instant:
        return Instant(machine_clock())

    async def fetch(self, statement: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        return list(await self._connection.execute_fetchall(statement, values))

    async def write(self, statement: str, rows: Sequence[Row]) -> None:
        await self._connection.executemany(statement, rows)

    async def commit(self) -> None:
        await self._connection.commit()

    async def rollback(self) -> None:
        await self._connection.rollback()


def machine_clock() -> int:
    return time.time_ns() // 1000


def open_sqlite(url: URL) -> Database:
    # One connection writes and does every checkpoint: before SQLite 3.51.3 a second one that
    # does either can corrupt the file (https://sqlite.org/wal.html, "The WAL-reset bug").
    writer = create_async_engine(
        url,
        pool_size=1,
        max_overflow=0,
        json_deserializer=labels_from_text,
        pool_reset_on_return=None,  # whoever writes has ended the transaction, one way or the other
    )
    reader = create_async_engine(
        url,
        pool_size=READERS,
        max_overflow=0,
        json_deserializer=labels_from_text,
        pool_reset_on_return=None,
    )
    busy = f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}"
    _on_sqlite_connect(
        writer,
        # FULL: an acknowledged commit survives a power loss, not only a crash.
        (busy, "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON"),
        begin=BEGIN,
    )
    _on_sqlite_connect(reader, (busy, "PRAGMA query_only=ON"), begin="BEGIN")
    return Database(url, writer, reader, _Sqlite())


def _on_sqlite_connect(engine: AsyncEngine, pragmas: Iterable[str], *, begin: str) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        cursor = connection.cursor()
        for pragma in pragmas:
            _execute_patiently(cursor, pragma)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def began(connection: Connection) -> None:
        if not connection.get_execution_options().get("without_begin"):
            connection.exec_driver_sql(begin)


def _execute_patiently(cursor: Any, pragma: str) -> None:
    """Wait for the lock as the busy timeout would: changing the journal mode does not heed it."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute(pragma)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)  # once in a database's life, when several create it at once
        else:
            return
