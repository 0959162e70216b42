"""A connection to SQLite that stands in for aiosqlite's."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from jobledger_server.embedded import SEVERAL, Run, SqliteConnection
from jobledger_world.disk.calls import Calls, WriteLock
from jobledger_world.nodes import Node

BEGIN, COMMIT = "BEGIN IMMEDIATE", "COMMIT"

BUSY_TIMEOUT, SYNCHRONOUS = "PRAGMA busy_timeout=", "PRAGMA synchronous="


class File(Protocol):
    """What a connection needs to know of the file."""

    lock: WriteLock

    def times(self) -> tuple[float, float]:
        """Return how long a call takes until it runs, and from then until its answer."""

    def check_statement(self, connection: "Connection") -> None:
        """Raise if the statement that comes next has to fail."""

    def check_commit(self, connection: "Connection") -> None:
        """Raise if the commit that comes next has to fail."""

    def committed(self, connection: "Connection") -> None:
        """Record a commit. Raises if its answer has to be lost."""

    def count(self, name: str) -> None:
        """Count that a transaction was "busy", or a statement "interrupted"."""


class Connection:
    """Has what SQLAlchemy and the store use of `aiosqlite.Connection`.

    Args:
        loop: The world's loop; any other will do.
        file: What it shares with the file's other connections.
        path: Where the file is.
        node: The process that opened it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, file: File, path: Path, node: Node) -> None:
        self.node = node
        self._file = file
        # SQLAlchemy asks for it, to see whether it is open.
        self._connection: SqliteConnection | None = sqlite3.connect(
            path, timeout=0, isolation_level=None, factory=SqliteConnection
        )
        self._calls = Calls(
            loop,
            node,
            file.lock,
            times=file.times,
            has_begun=lambda: self.is_open and self.in_transaction,
            count=file.count,
        )

    # What the store uses.

    @property
    def in_transaction(self) -> bool:
        return self._open.in_transaction

    @property
    def total_changes(self) -> int:
        return self._open.total_changes

    async def execute_fetchall(self, statement: str, values: Any = ()) -> Sequence[Any]:
        _, rows = await self.run(statement, values)
        return rows

    async def commit(self) -> None:
        await self._call(self._commit)

    async def rollback(self) -> None:
        await self._call(self.undo)

    async def interrupt(self) -> None:
        self._calls.interrupt()

    # What else SQLAlchemy uses.

    def cursor(self) -> "Cursor":
        return Cursor(self)

    async def create_function(self, *args: Any, **options: Any) -> None:
        self._open.create_function(*args, **options)

    async def close(self) -> None:
        if self.is_open:
            await self._call(self.stop)

    def stop(self) -> None:
        """Close it at once, which undoes what is not committed."""
        if self._connection is not None:
            # A statement that a dead process has not read to its end keeps SQLite from closing,
            # and with it the transaction and its lock.
            self._connection.rollback()
            self._connection.close()
            self._connection = None
            self._file.lock.release(self._calls)

    # What the disk uses.

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    @property
    def writes(self) -> bool:
        """Whether it is in a transaction that writes."""
        return self._file.lock.holder is self._calls

    def undo(self) -> None:
        """Roll back, if there is a transaction."""
        self._open.rollback()

    def crash(self) -> None:
        """Close it as the operating system does at the end of a process."""
        self.stop()
        self._calls.abandon()

    # What runs.

    async def run(
        self, statement: str, values: Any = (), *, often: bool = False
    ) -> tuple[sqlite3.Cursor, Sequence[Any]]:
        """Run a statement, or SEVERAL; return its cursor and all rows."""
        if statement.startswith("PRAGMA"):  # only while the connection is opened
            return self._execute(self._pragma(statement), ())
        found: tuple[sqlite3.Cursor, Sequence[Any]] = await self._call(
            lambda: self._checked(statement, values, often=often),
            locks=statement in (BEGIN, SEVERAL),
        )
        return found

    @property
    def _open(self) -> SqliteConnection:
        if self._connection is None:
            raise ValueError("Connection closed")
        return self._connection

    async def _call(self, run: Callable[[], Any], *, locks: bool = False) -> Any:
        self._open  # raises if it is closed  # noqa: B018
        return await self._calls.add(run, locks=locks)

    def _checked(
        self, statement: str, values: Any, *, often: bool
    ) -> tuple[sqlite3.Cursor, Sequence[Any]]:
        if statement is SEVERAL:
            return self._execute(SEVERAL, self._checked_one_by_one(values))
        self._file.check_statement(self)
        return self._execute(statement, values, often=often)

    def _checked_one_by_one(self, runs: Iterable[Run]) -> Iterator[Run]:
        """Check each when the one before has run."""
        for run in runs:
            if run.statement == COMMIT:
                self._file.check_commit(self)
                yield run
                self._file.committed(self)
            else:
                self._file.check_statement(self)
                yield run

    def _execute(
        self, statement: str, values: Any, *, often: bool = False
    ) -> tuple[sqlite3.Cursor, Sequence[Any]]:
        cursor = (self._open.executemany if often else self._open.execute)(statement, values)
        # All of them: a statement that has not come to its end keeps its snapshot.
        return cursor, cursor.fetchall() if cursor.description else ()

    def _commit(self) -> None:
        if not self.writes:
            self._open.commit()
            return
        self._file.check_commit(self)
        self._open.commit()
        self._file.committed(self)

    def _pragma(self, statement: str) -> str:
        if statement.startswith(BUSY_TIMEOUT):
            self._calls.busy_timeout = int(statement.removeprefix(BUSY_TIMEOUT)) / 1000
            return f"{BUSY_TIMEOUT}0"
        # No machine of a world loses power.
        return f"{SYNCHRONOUS}OFF" if statement.startswith(SYNCHRONOUS) else statement


class Cursor:
    """Has what SQLAlchemy uses of `aiosqlite.Cursor`."""

    def __init__(self, connection: Connection) -> None:
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1
        self._connection = connection
        self._rows: Sequence[Any] = ()

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, statement: str, values: Any = ()) -> None:
        self._keep(*await self._connection.run(statement, values))

    async def executemany(self, statement: str, values: Any) -> None:
        self._keep(*await self._connection.run(statement, values, often=True))

    async def fetchall(self) -> Sequence[Any]:
        return self._rows

    async def close(self) -> None: ...

    def _keep(self, cursor: sqlite3.Cursor, rows: Sequence[Any]) -> None:
        self.description, self.rowcount = cursor.description, cursor.rowcount
        self.lastrowid, self._rows = cursor.lastrowid, rows
