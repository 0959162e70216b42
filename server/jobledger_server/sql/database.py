"""A database: its connections, its dialect, and the errors that it raises."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import URL, AdaptedConnection, event, exc
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState, QueuePool

from jobledger_server.database.url import BadDatabaseUrl
from jobledger_server.domain.limits import COMMAND_SECONDS
from jobledger_server.sql.dialect import Dialect
from jobledger_server.sql.sqlite.sqlite_dialect import SQLITE
from jobledger_server.sql.sqlite.sqlite_engines import Connect, open_sqlite


@dataclass(frozen=True)
class Database:
    """The engines that write, read, and read lists, and the dialect of all three."""

    url: URL
    writer: AsyncEngine
    reader: AsyncEngine
    lists: AsyncEngine
    dialect: Dialect

    @property
    def unavailable_errors(self) -> tuple[type[Exception], ...]:
        """What is raised if the database fails otherwise; see database/errors.py."""
        # The third is what the pool raises if PostgreSQL refuses a connection, as it does while it
        # starts. Only SQLAlchemy's own connections put a DBAPIError around it.
        return (
            exc.DBAPIError,
            exc.TimeoutError,
            self.writer.dialect.loaded_dbapi.Error,
            OSError,
            *self.dialect.driver_errors,
        )

    @property
    def conflicts(self) -> tuple[type[Exception], ...]:
        """What is raised if rows contradict each other or values do not fit."""
        return (exc.IntegrityError, exc.DataError, *self.dialect.conflicts)

    def connections(self) -> Mapping[str, tuple[int, int]]:
        """Return how many connections of each pool are in use, and how many there may be."""
        used = {}
        for name, engine in (
            ("writers", self.writer),
            ("readers", self.reader),
            ("lists", self.lists),
        ):
            pool = engine.pool
            assert isinstance(pool, QueuePool)  # noqa: S101
            used[name] = pool.checkedout(), pool.size()
        return used

    async def close(self) -> None:
        """Close every connection, the writer's last: on SQLite it does every checkpoint.

        A peer that no longer answers is not waited for beyond the dialect's `close_timeout`:
        the process ends anyway.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self.dialect.close_timeout):
                await self.reader.dispose()
                await self.lists.dispose()
                await self.writer.dispose()


def open_database(
    url: URL, *, seconds: float | None = COMMAND_SECONDS, connect: Connect | None = None
) -> Database:
    """Make the engines for a URL from `parse_url`, without connecting.

    Args:
        url: The database.
        seconds: How long a statement may take on PostgreSQL. None: no statement and no wait for a
            lock times out, on SQLite either. For migrations.
        connect: On SQLite, opens each connection in place of aiosqlite.

    Raises:
        BadDatabaseUrl: The URL names what cannot be used here.
    """
    if url.get_backend_name() == "sqlite":
        return _database(url, open_sqlite(url, unlimited=seconds is None, connect=connect), SQLITE)
    try:
        # PostgreSQL's driver is an extra: it is imported only if it is used.
        from jobledger_server.sql.postgresql.postgresql_dialect import (  # noqa: PLC0415
            POSTGRESQL,
        )
        from jobledger_server.sql.postgresql.postgresql_engines import (  # noqa: PLC0415
            open_postgresql,
        )
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise BadDatabaseUrl(
            "PostgreSQL needs its driver: pip install 'jobledger[postgres]'"
        ) from None
    return _database(url, open_postgresql(url, seconds=seconds), POSTGRESQL)


def _database(
    url: URL, engines: tuple[AsyncEngine, AsyncEngine, AsyncEngine], dialect: Dialect
) -> Database:
    for engine in engines:
        _close_open_transactions(engine, dialect)
    return Database(url, *engines, dialect)


def _close_open_transactions(engine: AsyncEngine, dialect: Dialect) -> None:
    """Have the pool close a connection that returns with an open transaction.

    After a commit that failed, SQLAlchemy returns it as it is. No transaction could begin on it.
    """

    @event.listens_for(engine.sync_engine, "reset")
    def returned(
        connection: AdaptedConnection, record: ConnectionPoolEntry, state: PoolResetState
    ) -> None:
        # Without asyncio_safe it was abandoned, and is closed in any case.
        if state.asyncio_safe and dialect.in_transaction(connection.driver_connection):
            record.invalidate()
