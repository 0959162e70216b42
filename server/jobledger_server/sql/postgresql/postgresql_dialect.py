"""PostgreSQL: many writers, its own clock."""

import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from sqlalchemy import (
    ARRAY,
    JSON,
    URL,
    BigInteger,
    Column,
    ColumnElement,
    Integer,
    LargeBinary,
    Select,
    Table,
    Text,
    any_,
    bindparam,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from jobledger_server.domain.job import Instant, JobId
from jobledger_server.domain.limits import LIST_SECONDS
from jobledger_server.sql.dialect import BadDatabaseUrl, Database, claimable
from jobledger_server.sql.driver import Deletion, Driver, Writes, Writing
from jobledger_server.sql.job_cache import Mark
from jobledger_server.sql.rows import labels_from_text
from jobledger_server.sql.tables import jobs

if TYPE_CHECKING:
    import asyncpg

COMMAND_SECONDS = 5
"""How long PostgreSQL may take for one statement before it counts as away."""

CONNECT_SECONDS = 3
"""How long PostgreSQL may take to accept a connection before it counts as away."""

CLOSE_SECONDS = 3
"""How long PostgreSQL may take to say good-bye on all connections."""

WRITERS, READERS, LISTS = 4, 6, 2
"""Connections. Lists take longer than all other reads, so they have their own."""

COPIED = 16
"""From so many new jobs on they are copied in. That is a round trip of its own, and each job is
cheaper."""

_PLACE = "change_seq"
"""The column that has a row's place in the feed. It comes counted from where `place` was before."""

TAKE_PLACES = (
    "UPDATE feed SET seq = seq + $1::bigint "
    "RETURNING seq, seq - $1::bigint AS before, txid_current() AS writer"
)
PLACES_TAKEN = "SELECT $1::bigint AS seq, 0::bigint AS before, txid_current() AS writer"

_CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


def _claimable(lock: str) -> str:
    """Return the statement that finds what is claimable of some types."""
    columns, condition = claimable("octet_length", labels="labels::text")
    return (
        "SELECT id, job_type, size FROM unnest($1::text[], $2::bigint[]) AS wanted (type, count) "  # noqa: S608
        f"CROSS JOIN LATERAL (SELECT {columns} FROM jobs "
        f"WHERE job_type = wanted.type AND {condition} (SELECT {_CLOCK}) "
        f"ORDER BY create_time, id LIMIT wanted.count {lock}) AS oldest "
        "ORDER BY create_time, id LIMIT $3"
    )


_FIND_CLAIMABLE = _claimable("")
# Passes over what another transaction has locked, instead of waiting to find it started.
_LOCK_CLAIMABLE = _claimable("FOR UPDATE SKIP LOCKED")


class _Postgresql:
    """See `dialect.Dialect`."""

    name = "postgresql"
    single_statement: Mapping[str, Any] = {"isolation_level": "AUTOCOMMIT"}
    snapshot: Mapping[str, Any] = {"isolation_level": "REPEATABLE READ"}
    close_timeout: float | None = CLOSE_SECONDS
    # Another cluster, another timeline of the same one (a standby that took over, a restore to a
    # point in time), or a table that was restored from a dump.
    database_identity: ColumnElement[str] = literal_column(
        "(SELECT system_identifier FROM pg_control_system())::text"
        " || ' ' || left(pg_walfile_name(pg_current_wal_lsn()), 8)"
        " || ' ' || 'feed'::regclass::oid::text"
    )

    def __init__(self, asyncpg: ModuleType) -> None:
        # What cannot be sent at all is the driver's DataError in a statement, and in what is
        # copied Python's own error.
        self.conflicts: tuple[type[Exception], ...] = (
            asyncpg.IntegrityConstraintViolationError,
            asyncpg.DataError,
            OverflowError,
            UnicodeEncodeError,
        )
        # Where the server goes away between two messages the driver loses its thread: then it
        # says that another operation is in progress, which is one of before that never ended.
        self._protocol_errors: tuple[type[Exception], ...] = (asyncpg.InternalClientError,)
        self.driver_errors: tuple[type[Exception], ...] = (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            *self._protocol_errors,
        )
        self._read_clock = select(self.clock)

    def one_of(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        return column == any_(bindparam(name, type_=ARRAY(Text)))

    def with_pairs(
        self,
        statement: Select[Any],
        first: ColumnElement[Any],
        second: ColumnElement[Any],
        name: str,
    ) -> Select[Any]:
        both = (bindparam(f"{name}_{half}", type_=ARRAY(Text)) for half in ("first", "second"))
        pairs = func.unnest(*both).table_valued("first", "second").render_derived()
        # Each pair looks for its one row by the index. Without the limit PostgreSQL would make it
        # a join, and as long as the table is not large read all of it.
        one = statement.where(first == pairs.c.first, second == pairs.c.second)
        found = one.limit(literal_column("1")).lateral()
        return select(found).select_from(pairs.join(found, true()))

    def bind_list(self, name: str, values: Collection[str]) -> dict[str, Any]:
        return {name: list(values)}

    def bind_pairs(self, name: str, values: Collection[tuple[str, str]]) -> dict[str, Any]:
        pairs = list(values)
        return {f"{name}_first": [a for a, _ in pairs], f"{name}_second": [b for _, b in pairs]}

    def locked(self, statement: Select[Any], *, skip: bool = False) -> Select[Any]:
        return statement.with_for_update(skip_locked=skip)

    def find_claimable(
        self, limits: Mapping[str, int], limit: int, *, lock: bool
    ) -> tuple[str, Sequence[Any]]:
        statement = _LOCK_CLAIMABLE if lock else _FIND_CLAIMABLE
        return statement, [list(limits), list(limits.values()), limit]

    def insertion(self, table: Table, columns: Sequence[str]) -> Writing:
        return _Insertion(table, tuple(columns))

    def change(self, table: Table, key: Column[Any], columns: Sequence[str]) -> Writing:
        values = ", ".join(f"{column} = {_value(table.c[column])}" for column in columns)
        all_columns = (key.name, *columns)
        names = ", ".join(all_columns)

        def change(first: int) -> str:
            return (
                f"UPDATE {table.name} SET {values} "  # noqa: S608
                f"FROM place, unnest({_arrays(table, all_columns, first)}) AS new ({names}) "
                f"WHERE {table.name}.{key.name} = new.{key.name}"
            )

        return change

    def driver(self, connection: Any) -> Driver:
        return _PostgresqlDriver(connection, self._protocol_errors)

    @property
    def clock(self) -> ColumnElement[int]:
        # clock_timestamp(), not now(): the transaction may have waited for its connection. Read
        # once, in a subquery: compared row by row, a clock that moves on could use no index.
        clock: ColumnElement[int] = literal_column(_CLOCK)
        return select(clock).scalar_subquery()

    async def now(self, connection: AsyncConnection) -> Instant:
        return Instant((await connection.execute(self._read_clock)).scalar_one())


@dataclass(frozen=True, eq=False)
class _Insertion:
    """See `driver.Writing`: the text depends on the number of the first parameter."""

    table: Table
    columns: tuple[str, ...]

    def __call__(self, first: int) -> str:
        names = ", ".join(self.columns)
        values = ", ".join(_value(self.table.c[column]) for column in self.columns)
        return (
            f"INSERT INTO {self.table.name} ({names}) SELECT {values} "  # noqa: S608
            f"FROM place, unnest({_arrays(self.table, self.columns, first)}) AS new ({names})"
        )


class _PostgresqlDriver:
    """See `driver.Driver`."""

    def __init__(
        self, connection: "asyncpg.Connection[Any]", protocol_errors: tuple[type[Exception], ...]
    ) -> None:
        self.committing = False
        self._connection = connection
        self._protocol_errors = protocol_errors
        self._begins = False  # with the next statement
        self._begun = False

    def lost(self, error: BaseException) -> bool:
        return self._connection.is_closed() or isinstance(error, self._protocol_errors)

    def terminate(self) -> None:
        self._connection.terminate()

    async def interrupt(self) -> None:
        """Do nothing: PostgreSQL ends it after its `statement_timeout`."""

    async def begin(self) -> None:
        # Whoever only asks for the time and appends needs none: one statement is a transaction.
        self._begins = True

    async def now(self) -> Instant:
        return Instant(await self._connection.fetchval(f"SELECT {_CLOCK}"))

    async def fetch(self, statement: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        await self._begin()
        return await self._connection.fetch(statement, *values)

    async def unchanged(self, marks: Mapping[JobId, Mark]) -> Collection[JobId]:
        await self._begin()
        # `xmin` is the transaction that wrote the row as it is: 32 bits of its number.
        found = await self._connection.fetch(
            "SELECT id, xmin::text FROM jobs WHERE id = ANY($1) ORDER BY id FOR UPDATE",
            list(marks),
        )
        return [job_id for job_id, mark in found if mark == marks[job_id]]

    async def append(
        self,
        count: int,
        writes: Callable[[int], Writes],
        *,
        deletion: Deletion | None,
        new: int,
        last: bool,
    ) -> tuple[int, Mark]:
        if new >= COPIED or deletion is not None:
            seq, writer = await self._append_in_steps(count, writes, deletion)
        else:
            if last and not self._begun:
                self.committing = True
            else:
                await self._begin()
            seq, writer = await self._write_at_once(TAKE_PLACES, count, writes(0))
        # 32 bits of the transaction's number are what its rows are told by: see `unchanged`.
        return seq, str(writer & 0xFFFF_FFFF)

    async def _write_at_once(self, place: str, number: int, writes: Writes) -> tuple[int, int]:
        # One array for each column: the database plans and runs one statement, not one a row.
        columns = [column for _, rows in writes for column in zip(*rows, strict=True)]
        widths = tuple((writing, len(rows[0])) for writing, rows in writes)
        ((seq, writer),) = await self._connection.fetch(at_once(place, widths), number, *columns)
        return seq, writer

    async def _append_in_steps(
        self, count: int, writes: Callable[[int], Writes], deletion: Deletion | None
    ) -> tuple[int, int]:
        """Take the places first: before a deletion, and for a copy, which is not computed with."""
        await self._begin()
        seq, writer = await self._write_at_once(TAKE_PLACES, count, ())
        if deletion is not None:
            statement, values = deletion
            await self._connection.fetch(statement, *values)
        rest = []
        for writing, rows in writes(seq - count):
            if isinstance(writing, _Insertion) and writing.table is jobs and len(rows) >= COPIED:
                # At once, before the others: they may be about these jobs.
                await self._connection.copy_records_to_table(
                    jobs.name, records=rows, columns=writing.columns
                )
            else:
                rest.append((writing, rows))
        if rest:
            await self._write_at_once(PLACES_TAKEN, seq, rest)
        return seq, writer

    async def _begin(self) -> None:
        if self._begins and not self._begun:
            await self._connection.execute("BEGIN")
            self._begun = True

    async def commit(self) -> None:
        if self._begun:
            self.committing = True
            await self._connection.execute("COMMIT")

    async def rollback(self) -> None:
        if self._begun:
            await self._connection.execute("ROLLBACK")


@cache
def at_once(place: str, writes: tuple[tuple[Writing, int], ...]) -> str:
    """Return one statement that does it all, given how many parameters each part has.

    The parts read `place`, so the counter is locked before any row is written: the other way
    round two servers could wait for each other.
    """
    parts = [f"place AS ({place})"]
    first = 2
    for number, (writing, parameters) in enumerate(writes):
        parts.append(f"part_{number} AS ({writing(first)})")
        first += parameters
    return f"WITH {', '.join(parts)} SELECT seq, writer FROM place"  # noqa: S608


def _arrays(table: Table, columns: Sequence[str], first: int) -> str:
    """Return the parameters of the columns' values, numbered from `first`."""
    return ", ".join(
        f"${number}::{_element_type(table.c[column])}[]"
        for number, column in enumerate(columns, start=first)
    )


def _element_type(column: Column[Any]) -> str:
    match column.type:
        case BigInteger():
            return "bigint"
        case Integer():
            return "integer"
        case LargeBinary():
            return "bytea"
        case _:
            return "text"


def _value(column: Column[Any]) -> str:
    if column.name == _PLACE:
        return f"place.before + new.{column.name}"
    return f"new.{column.name}::json" if isinstance(column.type, JSON) else f"new.{column.name}"


def open_postgresql(url: URL, *, unlimited: bool = False) -> Database:
    try:
        # An extra, wanted only where it is used.
        import asyncpg  # noqa: PLC0415
    except ImportError:
        raise BadDatabaseUrl(
            "PostgreSQL needs its driver: pip install 'jobledger[postgres]'"
        ) from None
    _check_certificates(url.query)
    seconds = 0 if unlimited else COMMAND_SECONDS  # 0: no limit
    own = {"statement_timeout": "0"} if unlimited else {}
    writer, reader = _engine(url, WRITERS, seconds, own), _engine(url, READERS, seconds, own)
    # PostgreSQL ends a list by itself: most that take too long have nobody who waits for them.
    lists = _engine(url, LISTS, seconds, {"statement_timeout": f"{LIST_SECONDS}s"})
    return Database(url, writer, reader, lists, _Postgresql(asyncpg))


def _engine(url: URL, connections: int, seconds: int, own: Mapping[str, str]) -> AsyncEngine:
    """Make an engine whose statements may take so long each, with some settings of its own."""
    return create_async_engine(
        url.set(query={}),
        pool_size=connections,
        max_overflow=0,
        json_deserializer=labels_from_text,
        hide_parameters=True,  # they are the callers', and errors go to the log
        pool_timeout=CONNECT_SECONDS,
        connect_args={
            # The driver reads the parameters of a URL as libpq does, but only those of a URL.
            "dsn": f"postgresql://?{urlencode(url.query)}" if url.query else None,
            "timeout": CONNECT_SECONDS,
            "command_timeout": seconds or None,
            "server_settings": {
                "application_name": "jobledger",
                "synchronous_commit": "on",
                # A server that freezes between the counter's lock and its commit must not hold
                # up the others for longer than this.
                "idle_in_transaction_session_timeout": f"{seconds}s",
                "lock_timeout": f"{seconds}s",
                "jit": "off",
                # A plan that was made while a table was small would else stay, and take an index
                # that is as good as another there, and reads all of it when it is large.
                "plan_cache_mode": "force_custom_plan",
                # Whatever is asked for is found by an index, and what is asked for is in memory
                # most of the time. At the default, made for disks that turn, a batch would read
                # all of a table of some ten thousand jobs to find a hundred.
                "random_page_cost": "1.1",
                **own,
            },
        },
    )


def _check_certificates(parameters: Mapping[str, Any]) -> None:
    """See that the files for TLS can be used. Raises BadDatabaseUrl.

    The driver reads them when it connects, and its errors do not name them.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    password = parameters.get("sslpassword", "")
    uses: Mapping[str, Callable[[str], None]] = {
        "sslrootcert": context.load_verify_locations,
        "sslcrl": context.load_verify_locations,
        "sslcert": lambda file: context.load_cert_chain(
            file, parameters.get("sslkey"), lambda: password
        ),
    }
    for name, use in uses.items():
        if not (file := parameters.get(name)):
            continue
        try:
            use(file)
        except (OSError, ValueError) as error:
            cause = error.strerror if isinstance(error, OSError) else str(error)
            raise BadDatabaseUrl(f"cannot use {name}={file} of the database URL: {cause}") from None
