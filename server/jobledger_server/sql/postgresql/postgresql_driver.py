"""asyncpg: the driver that a batch's statements go to directly."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import asyncpg
from sqlalchemy import JSON, BigInteger, Column, Double, Integer, LargeBinary, Table

from jobledger_server.domain.job import Instant, JobId
from jobledger_server.sql.driver import NEW_SEQS, Writes, WriteStatement
from jobledger_server.sql.job_cache import WriteId
from jobledger_server.sql.tables import ID, jobs
from jobledger_server.store import ConfigChanged

COPY_FROM_ROWS = 16
"""From this number of new jobs on they are copied. A copy is a round trip of its own, but each
job costs less."""

LOCK_FEED = (
    "SELECT before + $1::bigint AS seq, before, config, txid_current() AS writer FROM lock_feed()"
)
FEED_LOCKED = (
    "SELECT $1::bigint AS seq, 0::bigint AS before, NULL::bigint AS config,"
    " txid_current() AS writer"
)
"""The two forms of the part `counter` of a batch's statement: `before` is added to each new
sequence number, which is counted from the newest one or is final."""

CLOCK = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

# If the server disconnects between two messages, the driver's protocol state is wrong: it
# reports that another operation is in progress, namely an earlier one that never ended.
PROTOCOL_ERRORS: tuple[type[Exception], ...] = (asyncpg.InternalClientError,)


@dataclass(frozen=True)
class Rows:
    """How the rows of a statement are passed, as its parameters.

    Attributes:
        first: The number of the first parameter.
        single: Whether there is one row, whose values are the parameters. Else there is an array
            for each column, so that the database plans and runs one statement, not one a row. An
            array of one value costs the driver and PostgreSQL more than the value.
    """

    first: int
    single: bool

    def of(self, table: Table, columns: Sequence[str]) -> str:
        """Return what is selected from, with these columns of a table."""
        array = "" if self.single else "[]"
        parameters = ", ".join(
            f"${number}::{_element_type(table.c[column])}{array}"
            for number, column in enumerate(columns, start=self.first)
        )
        return f"(VALUES ({parameters}))" if self.single else f"unnest({parameters})"


@dataclass(frozen=True, eq=False)
class Insertion:
    """See `driver.WriteStatement`: the text depends on how its rows are passed."""

    table: Table
    columns: tuple[str, ...]
    on_conflict: str = ""
    inserted: Mapping[str, str] = field(default_factory=dict)
    joined: str = ""

    def __call__(self, rows: Rows) -> str:
        names = [*self.columns, *(name for name in self.inserted if name not in self.columns)]
        values = (self.inserted.get(name) or _value(self.table.c[name]) for name in names)
        return (
            f"INSERT INTO {self.table.name} ({', '.join(names)}) SELECT {', '.join(values)} "  # noqa: S608
            f"FROM counter, {rows.of(self.table, self.columns)}"
            f" AS new ({', '.join(self.columns)}) {self.joined}{self.on_conflict}"
        )


def update_statement(
    table: Table, key: Column[Any], columns: Sequence[str], kept: Collection[str]
) -> WriteStatement:
    """See `dialect.Dialect.change`: the text depends on how its rows are passed."""

    def new_value(column: Column[Any]) -> str:
        value = _value(column)
        return f"coalesce({value}, {column})" if column.name in kept else value

    values = ", ".join(f"{column} = {new_value(table.c[column])}" for column in columns)
    names = ", ".join(("key", *columns))

    def update(rows: Rows) -> str:
        return (
            f"UPDATE {table.name} SET {values} "  # noqa: S608
            f"FROM counter, {rows.of(table, (key.name, *columns))} AS new ({names}) "
            f"WHERE {table.name}.{key.name} = new.key"
        )

    return update


def deletion_statement(table: Table, condition: str) -> WriteStatement:
    """See `dialect.Dialect.deletion`: the text depends on how its rows are passed."""

    def delete(rows: Rows) -> str:
        id_ = f"${rows.first}::uuid"
        in_ids = condition.format(in_ids=f"= {id_}" if rows.single else f"= ANY({id_}[])")
        return f"DELETE FROM {table.name} USING counter WHERE {in_ids}"  # noqa: S608

    return delete


class PostgresqlDriver:
    """See `driver.Driver`."""

    def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
        self.committing = False
        self._connection = connection
        self._may_begin = False
        self._begun = False
        self.time: Instant | None = None

    def is_broken_by(self, error: BaseException) -> bool:
        return self._connection.is_closed() or isinstance(error, PROTOCOL_ERRORS)

    def terminate(self) -> None:
        self._connection.terminate()

    async def interrupt(self) -> None:
        """Do nothing: `statement_timeout` ends the statement."""

    async def begin(self) -> None:
        # Not sent yet: a batch that reads the time and appends needs only one statement, which is
        # a transaction by itself.
        self._may_begin = True

    async def now(self) -> Instant:
        if self.time is None:
            self.time = Instant(await self._connection.fetchval(f"SELECT {CLOCK}"))
        return self.time

    async def fetch(self, statement: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        await self._begin()
        return await self._connection.fetch(statement, *values)

    async def unchanged(self, write_ids: Mapping[JobId, WriteId]) -> Collection[JobId]:
        await self._begin()
        # `xmin` is the transaction that wrote this version of the row: 32 bits of its id.
        found = await self._connection.fetch(
            f"SELECT id, xmin::text, {CLOCK} FROM jobs "  # noqa: S608
            "WHERE id = ANY($1) ORDER BY id FOR UPDATE",
            list(write_ids),
        )
        if found and self.time is None:  # so that it is no statement of its own
            self.time = Instant(found[0][2])
        return [job_id for job_id, write_id, _ in found if write_id == write_ids[job_id]]

    async def append(
        self,
        count: int,
        writes: Callable[[int], Writes],
        *,
        counted: bool,
        updates_first: bool,
        new: int,
        config_version: int | None,
        last: bool,
    ) -> tuple[int, WriteId]:
        # The parts of one statement have no order.
        if new >= COPY_FROM_ROWS or (new and updates_first):
            found = await self._append_in_steps(count, writes, updates_first=updates_first)
        else:
            if last and config_version is None and not self._begun:
                self.committing = True
            else:
                await self._begin()
            feed = LOCK_FEED if count or counted else FEED_LOCKED
            found = await self._write_at_once(feed, count, writes(0))
        seq, writer, config = found
        if None not in (config_version, config) and config_version != config:
            raise ConfigChanged
        # A row keeps only 32 bits of the transaction's id: see `unchanged`.
        return seq, str(writer & 0xFFFF_FFFF)

    async def _write_at_once(
        self, counter: str, number: int, writes: Writes
    ) -> tuple[int, int, int | None]:
        single = all(len(rows) == 1 for _, rows in writes)
        values: list[Any]
        if single:
            values = [value for _, (row,) in writes for value in row]
        else:
            values = [column for _, rows in writes for column in zip(*rows, strict=True)]
        widths = tuple((statement, len(rows[0])) for statement, rows in writes)
        statement = batch_statement(counter, widths, single=single)
        ((seq, writer, config),) = await self._connection.fetch(statement, number, *values)
        return seq, writer, config

    async def _append_in_steps(
        self, count: int, writes: Callable[[int], Writes], *, updates_first: bool
    ) -> tuple[int, int, int | None]:
        """Lock the feed first: a copy cannot add to values."""
        await self._begin()
        updates: Writes = ()
        if updates_first:
            updates = [each for each in writes(0) if not isinstance(each[0], Insertion)]
        seq, writer, config = await self._write_at_once(LOCK_FEED, count, updates)
        rest = []
        for writing, rows in writes(seq - count):
            if not isinstance(writing, Insertion):
                if not updates_first:
                    rest.append((writing, rows))
            elif writing.table is jobs and len(rows) >= COPY_FROM_ROWS:
                # Before the others, which may refer to these jobs.
                await self._connection.copy_records_to_table(
                    jobs.name, records=rows, columns=writing.columns
                )
            else:
                rest.append((writing, rows))
        if rest:
            await self._write_at_once(FEED_LOCKED, seq, rest)
        return seq, writer, config

    async def _begin(self) -> None:
        if self._may_begin and not self._begun:
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
def batch_statement(
    counter: str, writes: tuple[tuple[WriteStatement, int], ...], *, single: bool = False
) -> str:
    """Return one statement that locks the feed and writes every row.

    Its other parts read `counter`, so the feed is locked before any row is written. In the
    opposite order two servers could deadlock.

    Args:
        counter: LOCK_FEED or FEED_LOCKED.
        writes: Statements, and how many parameters each has.
        single: Whether each writes one row.
    """
    parts = [f"counter AS ({counter})"]
    first = 2
    for number, (statement, parameters) in enumerate(writes):
        parts.append(f"part_{number} AS ({statement(Rows(first, single))})")
        first += parameters
    return f"WITH {', '.join(parts)} SELECT seq, writer, config FROM counter"  # noqa: S608


def _element_type(column: Column[Any]) -> str:
    if column.type is ID:
        return "uuid"
    match column.type:
        case BigInteger():
            return "bigint"
        case Double():
            return "double precision"
        case Integer():
            return "integer"
        case LargeBinary():
            return "bytea"
        case _:
            return "text"


def _value(column: Column[Any]) -> str:
    if column.name in NEW_SEQS:
        return f"counter.before + new.{column.name}"
    return f"new.{column.name}::json" if isinstance(column.type, JSON) else f"new.{column.name}"
