"""Engines, and every difference between the two databases."""

import json
import sqlite3
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import (
    ARRAY,
    URL,
    BigInteger,
    ColumnElement,
    Connection,
    Executable,
    Select,
    Text,
    any_,
    bindparam,
    event,
    exc,
    func,
    literal_column,
    make_url,
    select,
    text,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from jobledger_server.domain.model import Instant
from jobledger_server.sql.tables import WAITING, jobs

BUSY_SECONDS = 4
"""How long a statement waits for another process's lock before the database counts as away."""

COMMAND_SECONDS = 5
"""How long PostgreSQL may take for one statement before it counts as away."""

CONNECT_SECONDS = 3
"""How long PostgreSQL may take to accept a connection before it counts as away."""

POSTGRES_CONNECTIONS = 8
SQLITE_READERS = 4


class BadDatabaseUrl(Exception):
    """The database URL cannot be used; the message says why and what to write instead."""


class Dialect(Protocol):
    """What the store must know of the database it is on."""

    name: str
    """SQLAlchemy's name for it."""

    driver_errors: tuple[type[Exception], ...]
    """What the driver raises, beside SQLAlchemy's errors, when the database is away."""

    single_statement: Mapping[str, Any]
    """Execution options for a statement that needs no transaction around it."""

    snapshot: Mapping[str, Any]
    """Execution options for a transaction in which all statements see the same."""

    def one_of(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        """Return `column IN (list)`, the list bound as `name`: one text for any length."""

    def pair_of(
        self, first: ColumnElement[Any], second: ColumnElement[Any], name: str
    ) -> ColumnElement[bool]:
        """Return `(first, second) IN (list of pairs)`, the list bound as `name`."""

    def bind_list(self, name: str, values: Collection[str]) -> dict[str, Any]:
        """Return the parameters for `one_of`."""

    def bind_pairs(self, name: str, values: Collection[tuple[str, str]]) -> dict[str, Any]:
        """Return the parameters for `pair_of`."""

    def locked(self, statement: Select[Any]) -> Select[Any]:
        """Return the statement so that it locks its rows until the transaction ends."""

    def oldest_waiting(
        self, job_types: Collection[str], limit: int
    ) -> tuple[Executable, dict[str, Any]]:
        """Return the statement, and its parameters, for `Transaction.find_waiting`.

        It takes the oldest of each type first, and of these the oldest: with an
        index by type and id that costs the same however many others wait.
        """

    @property
    def clock(self) -> ColumnElement[int]:
        """The database server's time, for use in a statement."""

    async def now(self, connection: AsyncConnection) -> Instant:
        """Return the database server's time."""


@dataclass(frozen=True)
class Database:
    """An engine that writes, one that reads, and how to talk to them."""

    url: URL
    writer: AsyncEngine
    reader: AsyncEngine
    dialect: Dialect

    @property
    def away(self) -> tuple[type[Exception], ...]:
        """What is raised when the database cannot be reached, or does not answer in time."""
        return (exc.DBAPIError, exc.TimeoutError, OSError, *self.dialect.driver_errors)

    async def close(self) -> None:
        """Close every connection, the writer's last: on SQLite it does every checkpoint."""
        await self.reader.dispose()
        await self.writer.dispose()


def parse_url(database: str) -> URL:
    """Read a database URL and give it its driver. Raises BadDatabaseUrl."""
    try:
        url = make_url(database)
    except exc.ArgumentError:
        raise BadDatabaseUrl(
            f"cannot read the database URL {database!r}: write sqlite:///FILE or "
            "postgresql://USER:PASSWORD@HOST:PORT/NAME"
        ) from None
    match url.get_backend_name():
        case "sqlite":
            if not url.database or url.database == ":memory:" or "mode=memory" in str(url):
                raise BadDatabaseUrl("SQLite needs a file, not memory: write sqlite:///FILE")
            return url.set(drivername="sqlite+aiosqlite")
        case "postgresql" | "postgres":
            # libpq's name for it, which many have in their URLs; the driver has another.
            query = {("ssl" if k == "sslmode" else k): v for k, v in url.query.items()}
            return url.set(drivername="postgresql+asyncpg", query=query)
        case other:
            raise BadDatabaseUrl(
                f"cannot use a {other!r} database: write sqlite:///FILE or "
                "postgresql://USER:PASSWORD@HOST:PORT/NAME"
            )


def open_database(url: URL) -> Database:
    """Make the engines for a parsed URL; nothing is connected yet. Raises BadDatabaseUrl."""
    if url.get_backend_name() == "sqlite":
        return _open_sqlite(url)
    return _open_postgresql(url)


class _Sqlite:
    """SQLite: one file, one writer at a time, the machine's own clock."""

    name = "sqlite"
    driver_errors: tuple[type[Exception], ...] = ()
    single_statement: Mapping[str, Any] = {"without_begin": True}
    snapshot: Mapping[str, Any] = {}

    def one_of(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        rows = func.json_each(bindparam(name)).table_valued("value")
        return column.in_(select(rows.c.value))

    def pair_of(
        self, first: ColumnElement[Any], second: ColumnElement[Any], name: str
    ) -> ColumnElement[bool]:
        rows = func.json_each(bindparam(name)).table_valued("value")
        pairs = select(
            func.json_extract(rows.c.value, "$[0]"), func.json_extract(rows.c.value, "$[1]")
        )
        return tuple_(first, second).in_(pairs)

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
            part = _waiting(jobs.c.job_type == bindparam(f"job_type_{number}"), self.clock)
            parts.append(select(part.subquery()))
            parameters[f"job_type_{number}"] = job_type
        oldest = union_all(*parts).subquery()
        return select(oldest).order_by(oldest.c.id).limit(bindparam("count")), parameters

    @property
    def clock(self) -> ColumnElement[int]:
        return bindparam("clock", callable_=_machine_clock, type_=BigInteger)

    async def now(self, connection: AsyncConnection) -> Instant:  # noqa: ARG002
        return Instant(_machine_clock())


def _machine_clock() -> int:
    return time.time_ns() // 1000


def _waiting(of_type: ColumnElement[bool], clock: ColumnElement[int]) -> Select[Any]:
    # What is overdue is the reaper's: it must not stand before what can be claimed.
    return (
        select(jobs)
        .where(of_type, text(WAITING), jobs.c.deadline > clock)
        .order_by(jobs.c.id)
        .limit(bindparam("count"))
    )


def _open_sqlite(url: URL) -> Database:
    # One connection writes and does every checkpoint: before SQLite 3.51.3 a second one that
    # does either can corrupt the file (https://sqlite.org/wal.html, "The WAL-reset bug").
    writer = create_async_engine(url, pool_size=1, max_overflow=0)
    reader = create_async_engine(url, pool_size=SQLITE_READERS, max_overflow=0)
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


class _Postgresql:
    """PostgreSQL: many writers, its own clock."""

    name = "postgresql"
    single_statement: Mapping[str, Any] = {"isolation_level": "AUTOCOMMIT"}
    snapshot: Mapping[str, Any] = {"isolation_level": "REPEATABLE READ"}

    def __init__(self, driver_errors: tuple[type[Exception], ...]) -> None:
        self.driver_errors = driver_errors
        self._read_clock = select(self.clock)

    def one_of(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        return column == any_(bindparam(name, type_=ARRAY(Text)))

    def pair_of(
        self, first: ColumnElement[Any], second: ColumnElement[Any], name: str
    ) -> ColumnElement[bool]:
        both = (bindparam(f"{name}_{half}", type_=ARRAY(Text)) for half in ("first", "second"))
        pairs = func.unnest(*both).table_valued("first", "second").render_derived()
        return tuple_(first, second).in_(select(pairs.c.first, pairs.c.second))

    def bind_list(self, name: str, values: Collection[str]) -> dict[str, Any]:
        return {name: list(values)}

    def bind_pairs(self, name: str, values: Collection[tuple[str, str]]) -> dict[str, Any]:
        pairs = list(values)
        return {f"{name}_first": [a for a, _ in pairs], f"{name}_second": [b for _, b in pairs]}

    def locked(self, statement: Select[Any]) -> Select[Any]:
        return statement.with_for_update()

    def oldest_waiting(
        self, job_types: Collection[str], limit: int
    ) -> tuple[Executable, dict[str, Any]]:
        wanted = func.unnest(bindparam("job_types", type_=ARRAY(Text)))
        types = wanted.table_valued("job_type").render_derived()
        of_type = _waiting(jobs.c.job_type == types.c.job_type, self.clock)
        # Passes over what another claim has locked, instead of waiting to find it taken.
        oldest = of_type.with_for_update(skip_locked=True).lateral()
        statement = select(oldest).select_from(types.join(oldest, true()))
        return (
            statement.order_by(oldest.c.id).limit(bindparam("count")),
            {"job_types": list(job_types), "count": limit},
        )

    @property
    def clock(self) -> ColumnElement[int]:
        # clock_timestamp(), not now(): the transaction may have waited for its connection.
        return literal_column("(extract(epoch FROM clock_timestamp()) * 1000000)::bigint")

    async def now(self, connection: AsyncConnection) -> Instant:
        return Instant((await connection.execute(self._read_clock)).scalar_one())


def _open_postgresql(url: URL) -> Database:
    try:
        # An extra, wanted only where it is used.
        import asyncpg  # noqa: PLC0415
    except ImportError:
        raise BadDatabaseUrl(
            "PostgreSQL needs its driver: pip install 'jobledger[postgres]'"
        ) from None
    engine = create_async_engine(
        url,
        pool_size=POSTGRES_CONNECTIONS,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
        connect_args={
            "timeout": CONNECT_SECONDS,
            "command_timeout": COMMAND_SECONDS,
            "server_settings": {
                "application_name": "jobledger",
                "synchronous_commit": "on",
                # A server that freezes between the counter's lock and its commit must not hold
                # up the others for longer than this.
                "idle_in_transaction_session_timeout": f"{COMMAND_SECONDS}s",
                "lock_timeout": f"{COMMAND_SECONDS}s",
                "jit": "off",
            },
        },
    )
    errors = (asyncpg.PostgresError, asyncpg.InterfaceError)
    return Database(url, engine, engine, _Postgresql(errors))
