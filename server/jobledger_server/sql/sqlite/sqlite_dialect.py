"""SQLite: one file, one writer at a time, the machine's own clock."""

import json
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from itertools import chain
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Select,
    Table,
    bindparam,
    func,
    literal,
    select,
    tuple_,
)
from sqlalchemy.dialects.sqlite import aiosqlite
from sqlalchemy.engine.interfaces import Dialect as SqlDialect
from sqlalchemy.ext.asyncio import AsyncConnection

from jobledger_server.domain.job import Instant, JobId
from jobledger_server.sql.dialect import (
    CLAIMABLE_COLUMNS,
    FIRST_OF_ALL,
    FIRST_QUEUES,
    NOTHING,
    OLDEST_FIRST,
    PLACE,
    QUEUE_COLUMNS,
    QUEUE_OF,
    READY_AFTER,
    queue_id,
    replacing,
)
from jobledger_server.sql.driver import Driver, WriteStatement
from jobledger_server.sql.sqlite.sqlite_driver import (
    RowStatement,
    SqliteDriver,
    WriteGeneration,
    machine_clock,
)
from jobledger_server.sql.tables import jobs, tenant


class SqliteDialect:
    """See `dialect.Dialect`."""

    name = "sqlite"
    sqlalchemy: SqlDialect = aiosqlite.dialect()
    # The last two: the driver was given an integer beyond 64 bits, or invalid text.
    conflicts: tuple[type[Exception], ...] = (
        sqlite3.IntegrityError,
        sqlite3.DataError,
        OverflowError,
        UnicodeEncodeError,
    )
    driver_errors: tuple[type[Exception], ...] = (sqlite3.Error,)
    single_statement: Mapping[str, Any] = {"without_begin": True}
    snapshot: Mapping[str, Any] = {}
    close_timeout: float | None = None
    # A file does not show that it is a copy: see file_lock.py.
    database_identity: ColumnElement[str] = literal("")

    def one_of(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        rows = func.json_each(bindparam(name)).table_valued("value")
        return column.in_(select(rows.c.value))

    def with_tuples(
        self, statement: Select[Any], columns: Sequence[ColumnElement[Any]], name: str
    ) -> Select[Any]:
        rows = func.json_each(bindparam(name)).table_valued("value")
        values = (func.json_extract(rows.c.value, f"$[{i}]") for i in range(len(columns)))
        return statement.where(tuple_(*columns).in_(select(*values)))

    def bind_list(self, name: str, values: Collection[str]) -> dict[str, Any]:
        return {name: json.dumps(list(values))}

    def bind_tuples(self, name: str, values: Collection[tuple[str, ...]]) -> dict[str, Any]:
        return {name: json.dumps(list(values))}

    def locked(self, statement: Select[Any], *, skip: bool = False) -> Select[Any]:  # noqa: ARG002
        return statement  # BEGIN IMMEDIATE has locked the whole file

    def find_queues(self, limits: Mapping[str, int], *, limit: int) -> tuple[str, Sequence[Any]]:
        turns = enumerate(limits.items())
        # No queue has an empty type.
        values = _padded([(turn, *each) for turn, each in turns], (len(limits), "", 0))
        return _find_queues(len(values)), [*chain.from_iterable(values), limit]

    def find_ready(self, counts: Mapping[int, int]) -> tuple[str, Sequence[Any]]:
        return _ready(_FIND_READY, counts, 0)

    def lock_ready(self, counts: Mapping[JobId, int]) -> tuple[str, Sequence[Any]]:
        return _ready(_LOCK_READY, counts, "")

    def lock_keys(self, keys: Collection[str]) -> tuple[str, Sequence[Any]]:
        return _LOCK_KEYS, [machine_clock(), json.dumps(list(keys))]

    def job_insertion(self, columns: Sequence[str]) -> WriteStatement:
        job_type, priority, *owner = (
            f"column{1 + columns.index(name)}"
            for name in ("job_type", "priority", "fairness_key", "user_id")
        )
        text = (
            f"INSERT INTO jobs ({', '.join(columns)}, queue_id) "  # noqa: S608
            f"SELECT *, {queue_id('queues', job_type, priority, tenant(*owner))} FROM {{rows}} "
            "WHERE column1 IS NOT NULL"
        )
        return RowStatement(text, len(columns))

    def insertion(
        self, table: Table, columns: Sequence[str], *, replace: bool = False
    ) -> WriteStatement:
        insertion = (
            f"INSERT INTO {table.name} ({', '.join(columns)}) "  # noqa: S608
            "SELECT * FROM {rows} WHERE column1 IS NOT NULL"
        )
        text = insertion + (replacing(table, columns) if replace else "")
        return RowStatement(text, len(columns))

    def count(
        self,
        table: Table,
        columns: Sequence[str],
        changed: Mapping[str, str],
        *,
        key: Sequence[str] = (),
        inserted: Mapping[str, str] = NOTHING,
    ) -> WriteStatement:
        columns_of_table = [*columns, *(name for name in inserted if name not in columns)]
        values = ", ".join(inserted.get(name, f"new.{name}") for name in columns_of_table)
        changes = ", ".join(f"{name} = {value}" for name, value in changed.items())
        keys = ", ".join(key or table.primary_key.columns.keys())
        text = (
            f"WITH new ({', '.join(columns)}) AS {{rows}} "  # noqa: S608
            f"INSERT INTO {table.name} ({', '.join(columns_of_table)}) "
            f"SELECT {values} FROM new WHERE new.{columns[0]} IS NOT NULL "
            f"ON CONFLICT ({keys}) DO UPDATE SET {changes}"
        )
        return RowStatement(text, len(columns))

    def change(
        self, table: Table, key: Column[Any], columns: Sequence[str], *, kept: Collection[str] = ()
    ) -> WriteStatement:
        return self._change(table, key, columns, kept)

    def job_move(self, columns: Sequence[str], *, kept: Collection[str]) -> WriteStatement:
        # The key is the first column of each row.
        priority = f"column{2 + columns.index('priority')}"
        owner = tenant("jobs.fairness_key", "jobs.user_id")
        queue = queue_id("queues", "jobs.job_type", priority, owner)
        return self._change(jobs, jobs.c.id, columns, kept, f", queue_id = {queue}")

    def _change(
        self,
        table: Table,
        key: Column[Any],
        columns: Sequence[str],
        kept: Collection[str],
        more: str = "",
    ) -> WriteStatement:
        def new_value(column: str, number: int) -> str:
            value = f"column{number}"
            return f"coalesce({value}, {table.name}.{column})" if column in kept else value

        # The key comes first in each row, as it does on PostgreSQL.
        values = ", ".join(
            f"{column} = {new_value(column, number)}"
            for number, column in enumerate(columns, start=2)
        )
        text = (
            f"UPDATE {table.name} SET {values}{more} "  # noqa: S608
            f"FROM {{rows}} WHERE {table.name}.{key.name} = column1"
        )
        return RowStatement(text, 1 + len(columns), updates=True)

    def deletion(self, table: Table, condition: str) -> WriteStatement:
        in_ids = condition.format(in_ids="IN (SELECT column1 FROM ids)")
        text = f"WITH ids AS {{rows}} DELETE FROM {table.name} WHERE {in_ids}"  # noqa: S608
        return RowStatement(text, 1)

    def drivers(self) -> Callable[[Any], Driver]:
        return partial(SqliteDriver, generation=WriteGeneration())

    def in_transaction(self, connection: Any) -> bool:
        return bool(connection.in_transaction)

    @property
    def clock(self) -> ColumnElement[int]:
        return bindparam("clock", callable_=machine_clock, type_=BigInteger)

    async def now(self, connection: AsyncConnection) -> Instant:  # noqa: ARG002
        return Instant(machine_clock())


SQLITE = SqliteDialect()

_FIND_QUEUES = (
    f"SELECT *, {PLACE}, ? AS turn FROM "  # noqa: S608
    f"(SELECT {QUEUE_COLUMNS} FROM queues WHERE job_type = ? AND {FIRST_QUEUES} LIMIT ?)"
)


def _find_ready(queue: str) -> str:
    return (
        f"SELECT {CLAIMABLE_COLUMNS} FROM jobs WHERE queue_id = {queue} "  # noqa: S608
        f"AND {READY_AFTER} ? {OLDEST_FIRST} LIMIT ?"
    )


_FIND_READY = _find_ready("?")
_LOCK_READY = _find_ready(QUEUE_OF.format(id="?"))
_LOCK_KEYS = (
    "SELECT wanted.value, coalesce(found.running, 0),"
    " coalesce(own.max_running, general.max_running),"
    " own.pause_time IS NOT NULL OR general.pause_time IS NOT NULL, ? "
    "FROM json_each(?) AS wanted "
    "LEFT JOIN limit_keys AS found ON found.key = wanted.value "
    "LEFT JOIN limit_rules AS own ON own.name = wanted.value "
    "LEFT JOIN limit_rules AS general"
    " ON general.name = substr(wanted.value, 1, instr(wanted.value || ':', ':') - 1)"
)


def _padded(values: list[Any], nothing: Any) -> list[Any]:
    """Pad the values to a power of two, so that there are few texts for the driver to prepare."""
    size = 1 << (len(values) - 1).bit_length()
    return [*values, *[nothing] * (size - len(values))]


def _ready(statement: str, counts: Mapping[Any, int], nothing: Any) -> tuple[str, Sequence[Any]]:
    now = machine_clock()
    values = _padded([(key, now, count) for key, count in counts.items()], (nothing, now, 0))
    return _union(statement, len(values)), list(chain.from_iterable(values))


@cache
def _union(statement: str, count: int) -> str:
    return " UNION ALL ".join([f"SELECT * FROM ({statement})"] * count)  # noqa: S608


@cache
def _find_queues(types: int) -> str:
    first = _union(_FIND_QUEUES, types)
    return f"SELECT {QUEUE_COLUMNS} FROM ({first}) {FIRST_OF_ALL} LIMIT ?"  # noqa: S608
