"""SQLite: one file, one writer at a time, the machine's own clock."""

import json
import sqlite3
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Executable,
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
from jobledger_server.sql.rows import Row, labels_from_text
from jobledger_server.sql.tables import jobs

BUSY_SECONDS = 4
"""How long a statement waits for another process's lock before the database counts as away."""

READERS = 4


class _Sqlite:
    """See `dialect.Dialect`."""

    name = "sqlite"
    driver_errors: tuple[type[Exception], ...] = ()
    single_statement: Mapping[str, Any] = {"without_begin": True}
    snapshot: Mapping[str, Any] = {}
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

    def oldest_waiting(
        self, job_types: Collection[str], limit: int
    ) -> tuple[Executable, dict[str, Any]]:
        parts = []
        parameters: dict[str, Any] = {"count": limit}
        for number, job_type in enumerate(sorted(job_types)):
            part = oldest_waiting(jobs.c.job_type == bindparam(f"job_type_{number}"), self.clock)
            parts.append(select(part.subquery()))
            parameters[f"job_type_{number}"] = job_type
        oldest = union_all(*parts).subquery()
        return select(oldest).order_by(oldest.c.create_time, oldest.c.id).limit(
            bindparam("count")
        ), parameters

    def insertion(self, table: Table, columns: Sequence[str]) -> str:
        marks = ", ".join("?" * len(columns))
        return f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608

    def change(self, table: Table, key: Column[Any], columns: Sequence[str]) -> str:
        # By number: the key comes first in each row, as it does on PostgreSQL.
        values = ", ".join(f"{column} = ?{n}" for n, column in enumerate(columns, start=2))
        return f"UPDATE {table.name} SET {values} WHERE {key.name} = ?1"  # noqa: S608

    async def write(self, connection: AsyncConnection, statement: str, rows: Sequence[Row]) -> None:
        await connection.exec_driver_sql(statement, list(rows))

    @property
    def clock(self) -> ColumnElement[int]:
        return bindparam("clock", callable_=machine_clock, type_=BigInteger)

    async def now(self, connection: AsyncConnection) -> Instant:  # noqa: ARG002
        return Instant(machine_clock())


def machine_clock() -> int:
    return time.time_ns() // 1000


def open_sqlite(url: URL) -> Database:
    # One connection writes and does every checkpoint: before SQLite 3.51.3 a second one that
    # does either can corrupt the file (https://sqlite.org/wal.html, "The WAL-reset bug").
    writer = create_async_engine(
        url, pool_size=1, max_overflow=0, json_deserializer=labels_from_text
    )
    reader = create_async_engine(
        url, pool_size=READERS, max_overflow=0, json_deserializer=labels_from_text
    )
    busy = f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}"
    _on_sqlite_connect(
        writer,
        # FULL: an acknowledged commit survives a power loss, not only a crash.
        (busy, "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA foreign_keys=ON"),
        # A transaction that reads first and then writes would fail, without waiting, where
        # another process wrote in between: take the lock at once.
        begin="BEGIN IMMEDIATE",
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
