"""PostgreSQL: many writers, its own clock."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import asyncpg
from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
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
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.ext.asyncio import AsyncConnection

from jobledger_server.domain.job import Instant
from jobledger_server.sql.dialect import CLAIMABLE_AFTER, CLAIMABLE_COLUMNS, replacing
from jobledger_server.sql.driver import Driver, WriteStatement
from jobledger_server.sql.postgresql.postgresql_driver import (
    CLOCK,
    PROTOCOL_ERRORS,
    Insertion,
    PostgresqlDriver,
    deletion_statement,
    update_statement,
)
from jobledger_server.sql.tables import ID, jobs

CLOSE_SECONDS = 3
"""How long PostgreSQL may take to close all connections gracefully."""


def _find_claimable(lock: str) -> str:
    """Return the statement that finds claimable jobs of some types."""
    return (
        "SELECT id, job_type, size "  # noqa: S608
        "FROM unnest($1::text[], $2::bigint[]) AS request (type, count) "
        f"CROSS JOIN LATERAL (SELECT {CLAIMABLE_COLUMNS} FROM jobs "
        f"WHERE job_type = request.type AND {CLAIMABLE_AFTER} (SELECT {CLOCK}) "
        f"ORDER BY create_time, id LIMIT request.count {lock}) AS oldest "
        "ORDER BY create_time, id LIMIT $3"
    )


_FIND_CLAIMABLE = _find_claimable("")
# Skips jobs that another transaction has locked, instead of waiting and finding them started.
_LOCK_CLAIMABLE = _find_claimable("FOR UPDATE SKIP LOCKED")


def _list_of(column: ColumnElement[Any]) -> ARRAY[Any]:
    return ARRAY(UUID(as_uuid=False) if column.type is ID else Text)


class PostgresqlDialect:
    """See `dialect.Dialect`."""

    name = "postgresql"
    single_statement: Mapping[str, Any] = {"isolation_level": "AUTOCOMMIT"}
    snapshot: Mapping[str, Any] = {"isolation_level": "REPEATABLE READ"}
    close_timeout: float | None = CLOSE_SECONDS
    # Differs in another cluster, in another timeline of the same cluster (a promoted standby, a
    # point-in-time restore), and in a table that was restored from a dump.
    database_identity: ColumnElement[str] = literal_column(
        "(SELECT system_identifier FROM pg_control_system())::text"
        " || ' ' || left(pg_walfile_name(pg_current_wal_lsn()), 8)"
        " || ' ' || 'feed'::regclass::oid::text"
    )

    # The last two: a value cannot be encoded for a copy. For a statement that is a DataError.
    conflicts: tuple[type[Exception], ...] = (
        asyncpg.IntegrityConstraintViolationError,
        asyncpg.DataError,
        OverflowError,
        UnicodeEncodeError,
    )
    driver_errors: tuple[type[Exception], ...] = (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        *PROTOCOL_ERRORS,
    )

    def one_of(self, column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
        return column == any_(bindparam(name, type_=_list_of(column)))

    def with_pairs(
        self,
        statement: Select[Any],
        first: ColumnElement[Any],
        second: ColumnElement[Any],
        name: str,
    ) -> Select[Any]:
        both = (
            bindparam(f"{name}_{half}", type_=_list_of(column))
            for half, column in (("first", first), ("second", second))
        )
        pairs = func.unnest(*both).table_valued("first", "second").render_derived()
        # Each pair finds its row by the index. Without the limit PostgreSQL would plan a join,
        # and read the whole table unless it is large.
        one = statement.where(first == pairs.c.first, second == pairs.c.second)
        found = one.limit(literal_column("1")).lateral()
        return select(found).select_from(pairs.join(found, true()))

    def bind_list(self, name: str, values: Collection[str]) -> dict[str, Any]:
        return {name: list(values)}

    def bind_pairs(self, name: str, values: Collection[tuple[str, str]]) -> dict[str, Any]:
        pairs = list(values)
        return {f"{name}_first": [a for a, _ in pairs], f"{name}_second": [b for _, b in pairs]}

    def locked(self, statement: Select[Any], *, skip: bool = False) -> Select[Any]:
        return statement.with_for_update(of=jobs, skip_locked=skip)

    def find_claimable(
        self, limits: Mapping[str, int], limit: int, *, lock: bool
    ) -> tuple[str, Sequence[Any]]:
        statement = _LOCK_CLAIMABLE if lock else _FIND_CLAIMABLE
        return statement, [list(limits), list(limits.values()), limit]

    def insertion(
        self, table: Table, columns: Sequence[str], *, replace: bool = False
    ) -> WriteStatement:
        return Insertion(table, tuple(columns), replacing(table, columns) if replace else "")

    def change(
        self, table: Table, key: Column[Any], columns: Sequence[str], *, kept: Collection[str] = ()
    ) -> WriteStatement:
        return update_statement(table, key, columns, kept)

    def deletion(self, table: Table, condition: str) -> WriteStatement:
        return deletion_statement(table, condition)

    def driver(self, connection: Any) -> Driver:
        return PostgresqlDriver(connection)

    def in_transaction(self, connection: Any) -> bool:
        return bool(connection.is_in_transaction())

    @property
    def clock(self) -> ColumnElement[int]:
        # clock_timestamp(), not now(): the transaction may have waited for a lock. In a subquery
        # it is read once: a volatile function, evaluated row by row, cannot use an index.
        clock: ColumnElement[int] = literal_column(CLOCK)
        return select(clock).scalar_subquery()

    async def now(self, connection: AsyncConnection) -> Instant:
        return Instant((await connection.execute(select(self.clock))).scalar_one())
