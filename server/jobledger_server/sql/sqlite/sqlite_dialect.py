"""SQLite: one file, one writer at a time, the machine's own clock."""

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from functools import cache
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
from sqlalchemy.ext.asyncio import AsyncConnection

from jobledger_server.domain.job import Instant
from jobledger_server.sql.dialect import CLAIMABLE_AFTER, CLAIMABLE_COLUMNS, replacing
from jobledger_server.sql.driver import Driver, WriteStatement
from jobledger_server.sql.sqlite.sqlite_driver import (
    SqliteDriver,
    WriteGeneration,
    machine_clock,
)


class SqliteDialect:
    """See `dialect.Dialect`."""

    name = "sqlite"
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

    def __init__(self) -> None:
        self._generation = WriteGeneration()

    def one_of(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        rows = func.json_each(bindparam(name)).table_valued("value")
        return column.in_(select(rows.c.value))

    def with_pairs(
        self,
        statement: Select[Any],
        first: ColumnElement[Any],
        second: ColumnElement[Any],
        name: str,
    ) -> Select[Any]:
        rows = func.json_each(bindparam(name)).table_valued("value")
        pairs = select(
            func.json_extract(rows.c.value, "$[0]"), func.json_extract(rows.c.value, "$[1]")
        )
        return statement.where(tuple_(first, second).in_(pairs))

    def bind_list(self, name: str, values: Collection[str]) -> dict[str, Any]:
        return {name: json.dumps(list(values))}

    def bind_pairs(self, name: str, values: Collection[tuple[str, str]]) -> dict[str, Any]:
        return {name: json.dumps(list(values))}

    def locked(self, statement: Select[Any], *, skip: bool = False) -> Select[Any]:  # noqa: ARG002
        return statement  # BEGIN IMMEDIATE has locked the whole file

    def find_claimable(
        self,
        limits: Mapping[str, int],
        limit: int,
        *,
        lock: bool,  # noqa: ARG002
    ) -> tuple[str, Sequence[Any]]:
        now = machine_clock()
        # Padded to a power of two, so that there are few texts for the driver to prepare. No job
        # has an empty type.
        size = 1 << (len(limits) - 1).bit_length()
        requested = [*limits.items(), *[("", 0)] * (size - len(limits))]
        values = [value for job_type, count in requested for value in (job_type, now, count)]
        return _find_claimable(size), [*values, limit]

    def insertion(
        self, table: Table, columns: Sequence[str], *, replace: bool = False
    ) -> WriteStatement:
        insertion = (
            f"INSERT INTO {table.name} ({', '.join(columns)}) "  # noqa: S608
            "SELECT * FROM {rows} WHERE column1 IS NOT NULL"
        )
        return _of_rows(len(columns), insertion + (replacing(table, columns) if replace else ""))

    def change(
        self, table: Table, key: Column[Any], columns: Sequence[str], *, kept: Collection[str] = ()
    ) -> WriteStatement:
        def new_value(column: str, number: int) -> str:
            value = f"column{number}"
            return f"coalesce({value}, {table.name}.{column})" if column in kept else value

        # The key comes first in each row, as it does on PostgreSQL.
        values = ", ".join(
            f"{column} = {new_value(column, number)}"
            for number, column in enumerate(columns, start=2)
        )
        change = (
            f"UPDATE {table.name} SET {values} "  # noqa: S608
            f"FROM {{rows}} WHERE {table.name}.{key.name} = column1"
        )
        return _of_rows(1 + len(columns), change)

    def deletion(self, table: Table, condition: str) -> WriteStatement:
        in_ids = condition.format(in_ids="IN (SELECT column1 FROM ids)")
        return _of_rows(1, f"WITH ids AS {{rows}} DELETE FROM {table.name} WHERE {in_ids}")  # noqa: S608

    def driver(self, connection: Any) -> Driver:
        return SqliteDriver(connection, self._generation)

    def in_transaction(self, connection: Any) -> bool:
        return bool(connection.in_transaction)

    @property
    def clock(self) -> ColumnElement[int]:
        return bindparam("clock", callable_=machine_clock, type_=BigInteger)

    async def now(self, connection: AsyncConnection) -> Instant:  # noqa: ARG002
        return Instant(machine_clock())


@cache
def _find_claimable(types: int) -> str:
    """Return the statement that finds claimable jobs of this number of types."""
    of_type = (
        f"SELECT * FROM (SELECT {CLAIMABLE_COLUMNS} FROM jobs WHERE job_type = ? "  # noqa: S608
        f"AND {CLAIMABLE_AFTER} ? ORDER BY create_time, id LIMIT ?)"
    )
    each = " UNION ALL ".join([of_type] * types)
    return f"SELECT id, job_type, size FROM ({each}) ORDER BY create_time, id LIMIT ?"  # noqa: S608


def _of_rows(columns: int, statement: str) -> WriteStatement:
    """Return a statement whose rows have this number of columns, and bound values.

    SQLite names the columns column1, column2 and so on. Rows of NULLs only are padding: they
    fill a statement that has more rows than are to be written.
    """
    row = f"({', '.join('?' * columns)})"

    @cache
    def of_size(size: int) -> str:
        return statement.format(rows=f"(VALUES {', '.join([row] * size)})")

    return of_size
