"""The connections of a store: what runs on them, and what happens when one fails.

A connection that failed in the middle of a transaction is rolled back and reused. One that
is broken, or that may still be running a statement, is closed. Every error of the database
is raised as one of the store.
"""

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Executable, event, exc, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection, QueuePool
from sqlalchemy.util import greenlet_spawn

from jobledger_server.database.errors import cause_of, failure
from jobledger_server.sql.database import Database
from jobledger_server.sql.driver import Driver, Prepared
from jobledger_server.sql.tables import feed
from jobledger_server.store import StoreConflict

LOCK_FEED = select(feed.c.id).with_for_update()

Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")

INTERRUPT_SECONDS = 0.05
"""Between attempts to interrupt a statement whose caller was cancelled."""

Interrupt = Callable[[], Awaitable[None]]
"""Interrupts the statement that runs on a connection."""


@dataclass
class _Attempt:
    """What is known of an attempt that failed.

    Attributes:
        broken: Its connection broke.
        committing: A commit was sent, so the outcome is unknown.
    """

    broken: bool = False
    committing: bool = False


def writer_turns(database: Database) -> AbstractAsyncContextManager[Any]:
    """Return in what transactions that write wait for the only connection that may, if it is one.

    The pool gives it to whoever asks when it is free. So batches of commands, of which one follows
    the other, left claims and maintenance behind. A lock is taken in the order of arrival.
    """
    pool = database.writer.pool
    only_one = isinstance(pool, QueuePool) and pool.size() == 1
    return asyncio.Lock() if only_one else nullcontext()


class _Pool:
    """Lends the driver's connections of an engine, without SQLAlchemy's own around them.

    That one costs as much again as the pool does. If a connection broke, the others are probably
    broken too: each that was opened before is replaced before its next use. Disposing of the pool
    would wait for each silent peer in turn, and dropping it without closing would leave their
    sockets open.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._breaks = 0
        event.listen(engine.sync_engine, "checkout", self._check)

    def _check(
        self, _connection: object, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection
    ) -> None:
        # What SQLAlchemy keeps of a connection: here, how many had broken when it was opened.
        if record.info.setdefault(self, self._breaks) != self._breaks:
            raise exc.DisconnectionError  # SQLAlchemy then opens another one

    async def take(self) -> PoolProxiedConnection:
        """Take a connection, which is to be given back."""
        return await self._engine.raw_connection()

    async def give_back(self, connection: PoolProxiedConnection) -> None:
        """Give back a connection without an open transaction."""
        await greenlet_spawn(connection.close)

    async def close(self, connection: PoolProxiedConnection, *, broken: bool) -> None:
        """Close a connection, before it is given back."""
        if broken and connection.info[self] == self._breaks:
            self._breaks += 1
        await greenlet_spawn(connection.invalidate)


async def _no_interrupt() -> None: ...


async def to_completion(
    work: Coroutine[Any, Any, Result], interrupt: Interrupt = _no_interrupt
) -> Result:
    """Await the work, and let it end before a cancellation, or several, ends its caller.

    Work of SQLAlchemy on SQLite must end by itself. If it is cancelled, aiosqlite still runs
    its statement, on a connection that is never closed and keeps the file locked until it is
    collected as garbage.

    Args:
        work: A short transaction, or one that `interrupt` ends.
        interrupt: Called every INTERRUPT_SECONDS once the caller is cancelled: a single call
            may come between two statements.
    """
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await interrupt()
                await asyncio.wait([task], timeout=INTERRUPT_SECONDS)
        task.exception()  # retrieved, so that asyncio does not log it
        raise


def runs_to_completion(
    method: Callable[Parameters, Coroutine[Any, Any, Result]],
) -> Callable[Parameters, Coroutine[Any, Any, Result]]:
    """Have a method that makes a short transaction run `to_completion`."""

    @wraps(method)
    async def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return await to_completion(method(*args, **kwargs))

    return run


class StoreConnections:
    """Runs statements on the connections of a database.

    Args:
        database: The database.
        on_unavailable: Called when it fails: another database may answer next.
    """

    def __init__(self, database: Database, on_unavailable: Callable[[], None]) -> None:
        self._database = database
        self._driver_on = database.dialect.drivers()
        self._on_unavailable = on_unavailable
        self._writers, self._readers = _Pool(database.writer), _Pool(database.reader)
        # A single statement needs no transaction; several that must agree need a snapshot.
        self._single = database.reader.execution_options(**database.dialect.single_statement)
        self._snapshot = database.reader.execution_options(**database.dialect.snapshot)
        self._lists = database.lists.execution_options(**database.dialect.snapshot)
        self._writer_turns = writer_turns(database)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Driver]:
        """Begin a transaction on the driver itself. The block commits it; an error undoes it."""
        async with self._writer_turns, self._driver(self._writers) as driver:
            await driver.begin()
            yield driver

    async def fetch(self, statement: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Run a reading statement on the driver itself. For the most frequent reads.

        Not for a task that may be cancelled: see `runs_to_completion`.
        """
        async with self._driver(self._readers) as driver:
            return await driver.fetch(statement, values)

    @runs_to_completion
    async def poll(
        self, statement: Prepared, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Sequence[Any]]:
        """Run a reading statement on the driver itself, in any task.

        For what an idle server asks all the time: SQLAlchemy's way costs twice as much.
        """
        return await self.fetch(statement.text, statement.values(parameters or {}))

    @runs_to_completion
    async def read(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Any]:
        """Run a reading statement."""
        with self._translating():
            async with self._single.connect() as connection:
                return (await connection.execute(statement, parameters)).all()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """Begin a transaction whose statements all read the same snapshot.

        In a method that `runs_to_completion`.
        """
        with self._translating():
            async with self._snapshot.connect() as connection, connection.begin():
                yield connection

    async def read_list(self, read: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Read in one snapshot, on a connection for lists.

        If the caller is cancelled, its statement is interrupted.
        """
        interrupts: list[Interrupt] = []  # that of the running read

        async def reading() -> Result:
            with self._translating():
                async with self._lists.connect() as connection, connection.begin():
                    interrupts.append((await self._driver_of(connection)).interrupt)
                    try:
                        return await read(connection)
                    finally:
                        interrupts.clear()

        async def interrupt_reading() -> None:
            for interrupt in interrupts:
                await interrupt()

        return await to_completion(reading(), interrupt_reading)

    async def list_rows(self, statement: Executable) -> Sequence[Any]:
        """Run a reading statement as `read_list` does."""

        async def read(connection: AsyncConnection) -> Sequence[Any]:
            return (await connection.execute(statement)).all()

        return await self.read_list(read)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Begin a transaction that writes and that the end of the block commits.

        In a method that `runs_to_completion`.
        """
        with self._translating():
            async with (
                self._writer_turns,
                self._database.writer.connect() as connection,
                connection.begin(),
            ):
                yield connection

    async def close(self) -> None:
        """Close all connections."""
        await self._database.close()

    @asynccontextmanager
    async def writing_under_lock(self) -> AsyncIterator[AsyncConnection]:
        """Begin such a transaction, and lock the feed: every writer locks it first.

        A statement of its own: the next one sees what was committed before the lock.
        """
        async with self.writing() as connection:
            await connection.execute(LOCK_FEED)
            yield connection

    @asynccontextmanager
    async def _driver(self, pool: _Pool) -> AsyncIterator[Driver]:
        """Lend the driver's own connection, and clean it up after an error."""
        with self._translating() as attempt:
            connection = await pool.take()
            driver = self._driver_on(connection.driver_connection)
            try:
                yield driver
            except BaseException as error:
                attempt.broken = driver.is_broken_by(error)
                attempt.committing = driver.committing
                await _clean_up(pool, connection, driver, error, broken=attempt.broken)
                raise
            finally:
                await pool.give_back(connection)

    async def _driver_of(self, connection: AsyncConnection) -> Driver:
        return self._driver_on((await connection.get_raw_connection()).driver_connection)

    @contextmanager
    def _translating(self) -> Iterator[_Attempt]:
        """Turn the database's errors into the store's."""
        attempt = _Attempt()
        try:
            yield attempt
        except self._database.conflicts as error:
            raise StoreConflict(cause_of(error)) from error
        except self._database.unavailable_errors as error:
            self._on_unavailable()
            broken = attempt.broken or (
                isinstance(error, exc.DBAPIError) and error.connection_invalidated
            )
            raise failure(error, stale=broken and not attempt.committing) from error


async def _clean_up(
    pool: _Pool,
    connection: PoolProxiedConnection,
    driver: Driver,
    error: BaseException,
    *,
    broken: bool,
) -> None:
    """Roll back what the connection did, or close it if it cannot be used any more."""
    reusable = False
    try:
        if broken:
            driver.terminate()
        elif not _still_running(error):
            with suppress(Exception):
                await driver.rollback()
                reusable = True
    finally:
        # Also if the rollback is cancelled: the next transaction must not contain these writes.
        if not reusable:
            await pool.close(connection, broken=broken)


def _still_running(error: BaseException) -> bool:
    """Return whether the statement that raised this may still run: it was abandoned."""
    return not isinstance(error, Exception) or isinstance(error, TimeoutError)
