"""SQLite: one file, one writer at a time, the machine's own clock."""

import json
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from itertools import chain
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
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
from jobledger_server.sql.sqlite.sqlite_driver import (
    SqliteDriver,
    WriteGeneration,
    machine_clock,
)


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
    counted_queues = "queues"
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

    def lock_groups(self, ids: Collection[JobId]) -> tuple[str, Sequence[Any]]:
        return _GROUPS, [json.dumps(list(ids))]

    def find_tails(self, streams: Collection[tuple[JobId, str]]) -> tuple[str, Sequence[Any]]:
        return _FIND_TAILS, [json.dumps(list(streams))]

    def find_pieces(
        self, after: Collection[tuple[JobId, str, int]], *, limit: int
    ) -> Sequence[tuple[str, Sequence[Any]]]:
        return [(_FIND_PIECES, [*stream, limit]) for stream in after]

    def find_piece_at(self, job_id: JobId, stream: str, offset: int) -> tuple[str, Sequence[Any]]:
        return _FIND_PIECE_AT, [job_id, stream, offset]

    def find_newest_pieces(
        self, job_id: JobId, stream: str, count: int
    ) -> tuple[str, Sequence[Any]]:
        return _FIND_NEWEST_PIECES, [job_id, stream, count - 1]

    def rows_of(self, query: str) -> str:
        return f"rowid IN (SELECT old.rowid {query})"

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
_OF_ONE = OF_STREAM.format(job_id="?", stream="?")
_OF_WANTED = OF_STREAM.format(job_id="wanted.job_id", stream="wanted.stream")
_FIND_TAILS = (
    f"SELECT job_id, stream, {TAIL_COLUMNS}, "  # noqa: S608
    f"{STORED_COLUMNS.format(of_stream=_OF_WANTED)} FROM outputs AS wanted "
    "WHERE (job_id, stream, start) IN (SELECT job_id, stream, "
    f"(SELECT max(start) {_OF_WANTED}) FROM (SELECT value ->> 0 AS job_id, value ->> 1 AS stream "
    "FROM json_each(?)) AS wanted)"
)
_FIND_PIECES = f"SELECT {PIECE_COLUMNS} {_OF_ONE} AND start >= ? ORDER BY start LIMIT ?"
_FIND_NEWEST_PIECES = NEWEST_PIECES.format(of_stream=_OF_ONE, skipped="?")
_FIND_PIECE_AT = f"SELECT max(start) {_OF_ONE} AND start <= ?"
_GROUPS = GROUPS.format(
    source="jobs WHERE id IN (SELECT value FROM json_each(?)) AND delete_time IS NULL"
)
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
