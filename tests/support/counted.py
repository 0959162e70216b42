"""Counts what goes to a database: statements, and the round trips that they take."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import aiosqlite
import asyncpg
import pytest
from asyncpg.prepared_stmt import PreparedStatement
from sqlalchemy import event

from jobledger_server.sql.database import Database


class Counted:
    """What went to the database since the last `reset`.

    On PostgreSQL each statement is a round trip. On SQLite a round trip is one to the
    connection's thread, and SQLite itself says which statements it runs.
    """

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.values: list[Sequence[Any]] = []
        """The values of each statement. SQLite has put them into its text."""
        self.round_trips = 0
        self.bytes = 0
        """Bytes of texts and blobs in the rows that the driver returned, to batches at least."""

    def reset(self) -> None:
        self.statements.clear()
        self.values.clear()
        self.round_trips = 0
        self.bytes = 0

    def add(self, statement: str, values: Sequence[Any] = ()) -> None:
        self.statements.append(statement)
        self.values.append(values)

    def add_rows(self, rows: Iterable[Iterable[Any]]) -> None:
        self.bytes += sum(
            len(value) for row in rows for value in row if isinstance(value, bytes | str)
        )


@contextmanager
def counting(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    """Count in the block, on connections that are opened in it."""
    counted = Counted()
    with monkeypatch.context() as patched:
        if database.dialect.name == "sqlite":
            _count_sqlite(database, counted, patched)
        else:
            _count_postgresql(counted, patched)
        yield counted


def _count_sqlite(database: Database, counted: Counted, patched: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    answer = loop.call_soon_threadsafe

    def answered(*arguments: Any, **options: Any) -> asyncio.Handle:
        counted.round_trips += 1
        return answer(*arguments, **options)

    def connected(connection: Any, _record: object) -> None:
        connection.run_async(lambda sqlite: sqlite.set_trace_callback(counted.add))

    fetch = aiosqlite.Connection.execute_fetchall

    async def fetched(self: aiosqlite.Connection, *arguments: Any) -> Any:
        rows = await fetch(self, *arguments)
        counted.add_rows(rows)
        return rows

    patched.setattr(loop, "call_soon_threadsafe", answered)
    patched.setattr(aiosqlite.Connection, "execute_fetchall", fetched)
    for engine in (database.writer, database.reader, database.lists):
        event.listen(engine.sync_engine, "connect", connected)


def _count_postgresql(counted: Counted, patched: pytest.MonkeyPatch) -> None:
    def count(kind: type, name: str) -> None:
        send = getattr(kind, name)

        async def sent(self: Any, *arguments: Any, **options: Any) -> Any:
            counted.round_trips += 1
            if kind is PreparedStatement:
                counted.add(self.get_query(), arguments)
            else:
                counted.add(arguments[0], arguments[1:])
            result = await send(self, *arguments, **options)
            if name == "fetch":
                counted.add_rows(result)
            return result

        patched.setattr(kind, name, sent)

    for name in ("execute", "fetch", "fetchval", "copy_records_to_table"):
        count(asyncpg.Connection, name)
    count(PreparedStatement, "fetch")  # what SQLAlchemy uses
