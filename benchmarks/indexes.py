"""Takes the indexes off a database for as long as it is filled, and puts them back as they were.

To make an index of all rows at once takes a fraction of the time of adding each row
to it. References between tables go too: they need the indexes, and rows that are
made by one rule need no check one by one.
"""

import sqlite3
from collections.abc import AsyncIterator, Hashable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import asyncpg

from benchmarks.processes import BenchmarkError

# In the order in which they were made: where two plans cost the same, it decides.
_SQLITE_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY tbl_name, rowid"

_KEYS = """
SELECT conrelid::regclass::text AS at, conname AS name, contype::text AS kind,
  pg_get_constraintdef(oid) AS definition
FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype IN ('p', 'f')
ORDER BY contype, oid
"""

_INDEXES = """
SELECT indrelid::regclass::text AS at, indexrelid::regclass::text AS name,
  pg_get_indexdef(indexrelid) AS definition
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE relnamespace = 'public'::regnamespace ORDER BY indrelid, indexrelid
"""

_CONSTRAINTS = """
SELECT conrelid::regclass::text, conname, contype::text, convalidated, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2
"""


@contextmanager
def without_indexes_on_sqlite(connection: sqlite3.Connection) -> Iterator[None]:
    """Have no index and no trigger in the block. Raises BenchmarkError where one comes back other.

    An index that a primary key brings stays: it cannot be taken off.
    """
    before = connection.execute(_SQLITE_SCHEMA).fetchall()
    taken = [row for row in before if row[0] in {"index", "trigger"} and row[-1] is not None]
    for kind, name, *_ in taken:
        connection.execute(f"DROP {kind} {name}")
    yield
    for *_, definition in taken:
        connection.execute(definition)
    _compare(before, connection.execute(_SQLITE_SCHEMA).fetchall())


@asynccontextmanager
async def without_indexes(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Have no index and no reference in the block, on PostgreSQL.

    Raises BenchmarkError where one comes back other than it was.
    """
    before = await _schema(connection)
    keys = await connection.fetch(_KEYS)
    names = {key["name"] for key in keys}
    indexes = [row for row in await connection.fetch(_INDEXES) if row["name"] not in names]
    for key in keys:  # the references first: they need the keys
        await connection.execute(f"ALTER TABLE {key['at']} DROP CONSTRAINT {key['name']}")
    for index in indexes:
        await connection.execute(f"DROP INDEX {index['name']}")
    yield
    await _add(connection, [key for key in keys if key["kind"] == "p"])
    for index in indexes:
        await connection.execute(index["definition"])
    await _add(connection, [key for key in keys if key["kind"] == "f"])
    _compare(before, await _schema(connection))


async def _add(connection: asyncpg.Connection, keys: list[asyncpg.Record]) -> None:
    for key in keys:
        await connection.execute(
            f"ALTER TABLE {key['at']} ADD CONSTRAINT {key['name']} {key['definition']}"
        )


async def _schema(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    return await connection.fetch(_INDEXES) + await connection.fetch(_CONSTRAINTS)


def _compare(before: Sequence[Hashable], after: Sequence[Hashable]) -> None:
    if changed := set(before) ^ set(after):
        raise BenchmarkError(f"the schema is not what it was: {changed}")
    if before != after:
        raise BenchmarkError("the indexes are not in the order that they were in")
