"""A connection to SQLite that stands in for aiosqlite's, in simulated time.

aiosqlite has a thread for each connection. Here its calls run in the loop's thread, one after
another, each a little later than it was made.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, Protocol, Self

from jobledger.testing.world.loop import Node, WorldLoop
from jobledger_server.sql.sqlite.sqlite_connection import SEVERAL, Run, SqliteConnection

BEGIN, COMMIT = "BEGIN IMMEDIATE", "COMMIT"

RETRY_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.025, 0.025, 0.025, 0.05, 0.05)
"""Between the attempts of SQLite to get a lock; from then on each takes 0.1 seconds."""

_BUSY_TIMEOUT = "PRAGMA busy_timeout="

_SYNCHRONOUS = "PRAGMA synchronous="


class File(Protocol):
    """What a connection needs of the disk that it is on."""

    loop: WorldLoop

    writer: "Connection | None"
    """The connection that has the file's lock: as in SQLite, one at a time writes."""

    def delay(self) -> tuple[float, float]:
        """Return the seconds before a call runs, and those from then until its answer."""

    def fail(self, connection: "Connection") -> None:
        """Raise if the statement that comes next has to fail."""

    def reject(self, connection: "Connection") -> None:
        """Raise if the commit that comes next has to fail."""

    def committed(self, connection: "Connection") -> None:
        """Record a commit. Raises if its answer has to be lost."""

    def busy(self) -> None:
        """Record that a connection did not get the lock in time."""

    def closed(self, connection: "Connection") -> None:
        """Forget a connection."""


@dataclass(eq=False, slots=True)
class _Call:
    """A call of a connection: what it runs, and who waits for the result."""

    run: Callable[[], Any]
    answer: asyncio.Future[Any]
    locks: bool

    def interrupt(self) -> None:
        """Have it fail if it has not run."""
        self.run = _raising(sqlite_error("interrupted", sqlite3.SQLITE_INTERRUPT))


def sqlite_error(message: str, code: int) -> sqlite3.OperationalError:
    """Return the error that the driver raises for this result code."""
    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = code
    return error


class Connection:
    """Has what SQLAlchemy and the store use of `aiosqlite.Connection`.

    Args:
        file: Where it is.
        sqlite: The real connection.
        node: The process that opened it.
    """

    def __init__(self, file: File, sqlite: SqliteConnection, node: Node) -> None:
        self.node = node
        self._file = file
        self._connection: SqliteConnection | None = sqlite  # SQLAlchemy asks whether it is open
        self._calls: deque[_Call] = deque()
        self._busy_seconds = 0.0

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
        await self._call(self._open.rollback)

    async def interrupt(self) -> None:
        if self._calls:
            self._calls[0].interrupt()

    # What else SQLAlchemy uses.

    def cursor(self) -> "Cursor":
        return Cursor(self)

    async def create_function(self, *args: Any, **options: Any) -> None:
        self._open.create_function(*args, **options)

    async def close(self) -> None:
        if self._connection is not None:
            await self._call(self.stop)

    def stop(self) -> None:
        """Roll back and close at once, as when the process ends."""
        self._calls.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._release()
            self._file.closed(self)

    # How calls run.

    async def run(
        self, statement: str, values: Any = (), *, often: bool = False
    ) -> tuple[sqlite3.Cursor, Sequence[Any]]:
        """Run a statement, or SEVERAL; return its cursor and all rows."""
        if statement.startswith("PRAGMA"):  # only when a connection is opened
            return self._execute(self._pragma(statement), ())
        locks = statement in (BEGIN, SEVERAL)
        found: tuple[sqlite3.Cursor, Sequence[Any]] = await self._call(
            lambda: self._execute(statement, values, often=often), locks=locks
        )
        return found

    @property
    def _open(self) -> SqliteConnection:
        if self._connection is None:
            raise ValueError("Connection closed")
        return self._connection

    def _call(self, run: Callable[[], Any], *, locks: bool = False) -> asyncio.Future[Any]:
        """Have it run after the calls before. It runs even if nobody waits for it any more."""
        self._open  # noqa: B018
        call = _Call(run, self._file.loop.create_future(), locks)
        self._calls.append(call)
        if len(self._calls) == 1:
            self._begin(call)
        return call.answer

    def _begin(self, call: _Call) -> None:
        before, after = self._file.delay()
        loop = self._file.loop
        if before:
            loop.call_later(
                before, self._attempt, call, after, loop.time(), context=self.node.context
            )
        else:
            self._attempt(call, after, loop.time())

    def _attempt(self, call: _Call, after: float, since: float, tries: int = 0) -> None:
        """Run the call if nobody else has the lock that it needs; try again if somebody has."""
        if not self._calls or self._calls[0] is not call:
            return  # closed meanwhile
        loop, file = self._file.loop, self._file
        if call.locks and not self._open.in_transaction:
            if file.writer is not None:
                if loop.time() - since >= self._busy_seconds:
                    file.busy()
                    call.run = _raising(sqlite_error("database is locked", sqlite3.SQLITE_BUSY))
                else:
                    pause = next(chain(RETRY_SECONDS[tries:], repeat(0.1)))
                    loop.call_later(
                        pause,
                        self._attempt,
                        call,
                        after,
                        since,
                        tries + 1,
                        context=self.node.context,
                    )
                    return
            else:
                file.writer = self
        result = error = None
        try:
            result = call.run()
        except Exception as raised:  # noqa: BLE001
            error = raised
        if self._connection is not None and not self._connection.in_transaction:
            self._release()
        if after:
            loop.call_later(after, self._answer, call, result, error, context=self.node.context)
        else:
            self._answer(call, result, error)

    def _answer(self, call: _Call, result: Any, error: Exception | None) -> None:
        if not call.answer.done():
            if error is None:
                call.answer.set_result(result)
            else:
                call.answer.set_exception(error)
        if self._calls and self._calls[0] is call:
            self._calls.popleft()
            if self._calls:
                self._begin(self._calls[0])

    def _release(self) -> None:
        if self._file.writer is self:
            self._file.writer = None

    # What runs.

    def _execute(
        self, statement: str, values: Any, *, often: bool = False
    ) -> tuple[sqlite3.Cursor, Sequence[Any]]:
        if statement is SEVERAL:
            cursor = self._open.execute(SEVERAL, self._with_faults(values))
        else:
            self._file.fail(self)
            run = self._open.executemany if often else self._open.execute
            cursor = run(statement, values)
        # All of them: a statement that is not run to its end would keep its snapshot.
        return cursor, cursor.fetchall() if cursor.description else ()

    def _with_faults(self, runs: Iterable[Run]) -> Iterator[Run]:
        for run in runs:
            if run.statement == COMMIT:
                self._file.reject(self)
                yield run
                self._file.committed(self)
            else:
                self._file.fail(self)
                yield run

    def _commit(self) -> None:
        writes = self._file.writer is self
        if writes:
            self._file.reject(self)
        self._open.commit()
        if writes:
            self._file.committed(self)

    def _pragma(self, statement: str) -> str:
        if statement.startswith(_BUSY_TIMEOUT):
            # Within SQLite, waiting would block the loop.
            self._busy_seconds = int(statement.removeprefix(_BUSY_TIMEOUT)) / 1000
            return f"{_BUSY_TIMEOUT}0"
        # No process of a world loses power.
        return f"{_SYNCHRONOUS}OFF" if statement.startswith(_SYNCHRONOUS) else statement


def _raising(error: Exception) -> Callable[[], Any]:
    def run() -> None:
        raise error

    return run


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
