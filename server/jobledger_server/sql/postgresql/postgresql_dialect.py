"""PostgreSQL: many writers, its own clock."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import asyncpg
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Select,
    Text,
    any_,
    bindparam,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.engine.interfaces import Dialect as SqlDialect
from sqlalchemy.ext.asyncio import AsyncConnection

from jobledger_server.domain.job import Instant, JobId
from jobledger_server.sql.dialect import (
    CLAIMABLE_COLUMNS,
    FIRST_OF_ALL,
    FIRST_QUEUES,
    GROUPS,
    OLDEST_FIRST,
    PLACE,
    QUEUE_COLUMNS,
    QUEUE_OF,
    READY_AFTER,
)
from jobledger_server.sql.driver import Driver
from jobledger_server.sql.output_statements import (
    NEWEST_PIECES,
    OF_STREAM,
    PIECE_COLUMNS,
    STORED_COLUMNS,
    TAIL_COLUMNS,
)
from jobledger_server.sql.postgresql.batch_statement import COUNTED_QUEUES
from jobledger_server.sql.postgresql.postgresql_driver import (
    CLOCK,
    PROTOCOL_ERRORS,
    PostgresqlDriver,
)
from jobledger_server.sql.tables import ID, jobs

CLOSE_SECONDS = 3
"""How long PostgreSQL may take to close all connections gracefully."""


_FIND_QUEUES = (
    f"SELECT {QUEUE_COLUMNS} "  # noqa: S608
    "FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS request (type, count, turn) "
    f"CROSS JOIN LATERAL (SELECT *, {PLACE} FROM "
    f"(SELECT {QUEUE_COLUMNS} FROM queues "
    f"WHERE job_type = request.type AND {FIRST_QUEUES} LIMIT request.count) AS first) AS placed "
    f"{FIRST_OF_ALL} LIMIT $3"
)


def _find_ready(key: str, queue: str, lock: str = "") -> str:
    """Return the statement that finds the oldest ready jobs of some queues, each by a key."""
    return (
        f"SELECT oldest.* FROM unnest($1::{key}[], $2::bigint[]) AS request (key, count) "  # noqa: S608
        f"CROSS JOIN LATERAL (SELECT {CLAIMABLE_COLUMNS} FROM jobs "
        f"WHERE queue_id = {queue} AND {READY_AFTER} (SELECT {CLOCK}) "
        f"{OLDEST_FIRST} LIMIT request.count {lock}) AS oldest"
    )


_FIND_READY = _find_ready("bigint", "request.key")
# Skips jobs that another transaction has locked, instead of waiting and finding them started.
_LOCK_READY = _find_ready("uuid", QUEUE_OF.format(id="request.key"), "FOR UPDATE SKIP LOCKED")


_OF_WANTED = OF_STREAM.format(job_id="wanted.job_id", stream="wanted.stream")
_FIND_TAILS = (
    "SELECT wanted.job_id, wanted.stream, newest.*, "  # noqa: S608
    f"{STORED_COLUMNS.format(of_stream=_OF_WANTED)} "
    "FROM unnest($1::uuid[], $2::text[]) AS wanted (job_id, stream) CROSS JOIN LATERAL "
    f"(SELECT {TAIL_COLUMNS} {_OF_WANTED} ORDER BY start DESC LIMIT 1) AS newest"
)
_FIND_PIECES = (
    "SELECT piece.* "  # noqa: S608
    "FROM unnest($1::uuid[], $2::text[], $3::bigint[]) AS wanted (job_id, stream, start) "
    f"CROSS JOIN LATERAL (SELECT {PIECE_COLUMNS} {_OF_WANTED} AND start >= wanted.start "
    "ORDER BY start LIMIT $4) AS piece"
)
_FIND_NEWEST_PIECES = NEWEST_PIECES.format(
    of_stream=OF_STREAM.format(job_id="$1", stream="$2"), skipped="$3"
)
_FIND_PIECE_AT = f"SELECT max(start) {OF_STREAM.format(job_id='$1', stream='$2')} AND start <= $3"


def _list_of(column: ColumnElement[Any]) -> ARRAY[Any]:
    return ARRAY(UUID(as_uuid=False) if column.type is ID else Text)


class PostgresqlDialect:
    """See `dialect.Dialect`."""

    name = "postgresql"
    sqlalchemy: SqlDialect = asyncpg_dialect.dialect()  # type: ignore[no-untyped-call]
    single_statement: Mapping[str, Any] = {"isolation_level": "AUTOCOMMIT"}
    snapshot: Mapping[str, Any] = {"isolation_level": "REPEATABLE READ"}
    close_timeout: float | None = CLOSE_SECONDS
    counted_queues = COUNTED_QUEUES
    # Differs in another cluster, in another timeline of the same cluster (a promoted standby, a
    # point-in-time restore), and in a table that was restored from a dump.
    database_identity: ColumnElement[str] = literal_column(
        "(SELECT system_identifier FROM pg_control_system())::text"
        " || ' ' || left(pg_walfile_name(pg_current_wal_lsn()), 8)"
        " || ' ' || 'feed'::regclass::oid::text"
    )

    # The second: a job without an owner would change the row of its level twice. The last two: a
    # value cannot be encoded for a copy. For a statement that is a DataError.
    conflicts: tuple[type[Exception], ...] = (
        asyncpg.IntegrityConstraintViolationError,
        asyncpg.CardinalityViolationError,
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

    def with_tuples(
        self, statement: Select[Any], columns: Sequence[ColumnElement[Any]], name: str
    ) -> Select[Any]:
        bound = (
            bindparam(f"{name}_{i}", type_=_list_of(column)) for i, column in enumerate(columns)
        )
        names = [f"column_{i}" for i in range(len(columns))]
        tuples = func.unnest(*bound).table_valued(*names).render_derived()
        # Each tuple finds its row by the index. Without the limit PostgreSQL would plan a join,
        # and read the whole table unless it is large.
        one = statement.where(
            *(column == tuples.c[own] for column, own in zip(columns, names, strict=True))
        )
        found = one.limit(literal_column("1")).lateral()
        return select(found).select_from(tuples.join(found, true()))

    def bind_list(self, name: str, values: Collection[str]) -> dict[str, Any]:
        return {name: list(values)}

    def bind_tuples(self, name: str, values: Collection[tuple[str, ...]]) -> dict[str, Any]:
        return {f"{name}_{i}": list(column) for i, column in enumerate(zip(*values, strict=True))}

    def locked(self, statement: Select[Any], *, skip: bool = False) -> Select[Any]:
        return statement.with_for_update(of=jobs, skip_locked=skip)

    def find_queues(self, limits: Mapping[str, int], *, limit: int) -> tuple[str, Sequence[Any]]:
        return _FIND_QUEUES, [list(limits), list(limits.values()), limit]

    def find_ready(self, counts: Mapping[int, int]) -> tuple[str, Sequence[Any]]:
        return _FIND_READY, [list(counts), list(counts.values())]

    def lock_ready(self, counts: Mapping[JobId, int]) -> tuple[str, Sequence[Any]]:
        return _LOCK_READY, [list(counts), list(counts.values())]

    def lock_keys(self, keys: Collection[str]) -> tuple[str, Sequence[Any]]:
        return f"SELECT *, {CLOCK} FROM lock_keys($1)", [list(keys)]  # noqa: S608

    def lock_groups(self, ids: Collection[JobId]) -> tuple[str, Sequence[Any]]:
        return GROUPS.format(source="lock_groups($1)"), [list(ids)]

    def find_tails(self, streams: Collection[tuple[JobId, str]]) -> tuple[str, Sequence[Any]]:
        ids, names = zip(*streams, strict=True)
        return _FIND_TAILS, [list(ids), list(names)]

    def find_pieces(
        self, after: Collection[tuple[JobId, str, int]], *, limit: int
    ) -> Sequence[tuple[str, Sequence[Any]]]:
        ids, names, starts = zip(*after, strict=True)
        return [(_FIND_PIECES, [list(ids), list(names), list(starts), limit])]

    def find_piece_at(self, job_id: JobId, stream: str, offset: int) -> tuple[str, Sequence[Any]]:
        return _FIND_PIECE_AT, [job_id, stream, offset]

    def find_newest_pieces(
        self, job_id: JobId, stream: str, count: int
    ) -> tuple[str, Sequence[Any]]:
        return _FIND_NEWEST_PIECES, [job_id, stream, count - 1]

    def rows_of(self, query: str) -> str:
        return f"ctid = ANY(ARRAY(SELECT old.ctid {query}))"

    def drivers(self) -> Callable[[Any], Driver]:
        return PostgresqlDriver

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


POSTGRESQL = PostgresqlDialect()
