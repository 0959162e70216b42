"""Opens an SQLite file: one connection that writes, several that read."""

import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from jobledger_server.database.sqlite_connection import SqliteConnection
from jobledger_server.database.url import BadDatabaseUrl
from jobledger_server.sql.rows import labels_from_text
from jobledger_server.sql.sqlite.sqlite_driver import BEGIN

BUSY_SECONDS = 4
"""How long a statement waits for another process's lock before the database is unavailable."""

MIGRATION_BUSY_SECONDS = 24 * 3600
"""The same for a migration, which no caller waits for."""

MINIMUM_VERSION = (3, 35)
"""The first version that has RETURNING."""

READERS = 4

LISTS = 2
"""Connections for lists, which take longer than all other reads."""


Connect = Callable[[], Awaitable[Any]]
"""Opens a connection in place of aiosqlite's, with what a store and SQLAlchemy use of one. It
begins no transaction by itself, and runs what `SqliteConnection` runs."""


def open_sqlite(
    url: URL, *, unlimited: bool, connect: Connect | None = None
) -> tuple[AsyncEngine, AsyncEngine, AsyncEngine]:
    """Return the engines of a `Database`: the writer, the reader and that of lists."""
    if sqlite3.sqlite_version_info < MINIMUM_VERSION:
        raise BadDatabaseUrl(
            f"SQLite is version {sqlite3.sqlite_version} here, and this server needs "
            f"{'.'.join(map(str, MINIMUM_VERSION))} or newer: use a newer Python, or PostgreSQL"
        )
    # One connection writes and does every checkpoint: before SQLite 3.51.3 a second one that
    # does either can corrupt the file (https://sqlite.org/wal.html, "The WAL-reset bug").
    writer, reader, lists = (
        _engine(url, connections, connect) for connections in (1, READERS, LISTS)
    )
    busy_seconds = MIGRATION_BUSY_SECONDS if unlimited else BUSY_SECONDS
    busy = f"PRAGMA busy_timeout={busy_seconds * 1000}"
    _on_connect(
        writer,
        (
            busy,
            "PRAGMA journal_mode=WAL",
            # An acknowledged commit survives a power loss, not only a crash.
            "PRAGMA synchronous=FULL",
            # SQLite keeps in memory what it needs to undo one statement. Otherwise nearly every
            # statement that writes many rows creates a temporary file.
            "PRAGMA temp_store=MEMORY",
            "PRAGMA foreign_keys=ON",
        ),
        begin=BEGIN,
        busy_seconds=busy_seconds,
    )
    for engine in (reader, lists):
        _on_connect(
            engine, (busy, "PRAGMA query_only=ON"), begin="BEGIN", busy_seconds=busy_seconds
        )
    return writer, reader, lists


def _engine(url: URL, connections: int, connect: Connect | None) -> AsyncEngine:
    return create_async_engine(
        url,
        # Without a level, the driver begins no transactions of its own.
        connect_args={"factory": SqliteConnection, "isolation_level": None},
        async_creator=connect,
        pool_size=connections,
        max_overflow=0,
        json_deserializer=labels_from_text,
        hide_parameters=True,  # they are the callers' data, and errors are logged
        pool_reset_on_return=None,  # a connection in a transaction is not reused: see database.py
    )


def _on_connect(
    engine: AsyncEngine, pragmas: Iterable[str], *, begin: str, busy_seconds: int
) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
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
            time.sleep(0.01)  # only when several processes create the same database at once
        else:
            return
