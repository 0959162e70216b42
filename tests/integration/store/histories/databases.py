"""Each kind of database, as several servers share it: empty, and with a clock that a test sets.

SQLite and the store in memory read this machine's clock, and PostgreSQL its own: both are replaced.
"""

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import pytest

from jobledger_server.check.invariants import violations
from jobledger_server.database.url import parse_url
from jobledger_server.domain.job import Instant
from jobledger_server.sql.database import Database, open_database
from jobledger_server.sql.postgresql.postgresql_driver import PostgresqlDriver
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.sql.sqlite.sqlite_driver import SqliteDriver
from jobledger_server.store import Store, StoreUnavailable
from jobledger_world.memory.link import Database as MemoryDatabase
from jobledger_world.memory.locks import Locks
from jobledger_world.memory.store import MemoryStore
from jobledger_world.memory.tables import Tables
from jobledger_world.memory.transaction import MemoryTransaction
from tests.support import memory_invariants
from tests.support.memory_store import DirectLink

# Found before PostgreSQL's own function. A sequence is read as it is set, in any transaction.
_POSTGRESQL_CLOCK = """
    CREATE SCHEMA clock;
    CREATE SEQUENCE clock.micros;
    CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz VOLATILE LANGUAGE sql AS
        $$ SELECT to_timestamp(0) + last_value * interval '1 microsecond' FROM clock.micros $$;
    DO $$ BEGIN EXECUTE format(
        'ALTER DATABASE %I SET search_path = clock, pg_catalog, public', current_database()
    ); END $$
"""


@dataclass
class World:
    """What all databases share.

    Attributes:
        now: Their time, in microseconds.
        commits_are_lost: Whether nobody learns of a commit.
    """

    now: int
    commits_are_lost: bool = False

    def install(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(time, "time_ns", lambda: self.now * 1000)
        self._lose_commits_of(patch, MemoryTransaction, StoreUnavailable("lost"))
        self._lose_commits_of(patch, SqliteDriver, OSError("lost"))
        self._lose_commits_of(patch, PostgresqlDriver, OSError("lost"))

    def _lose_commits_of(
        self, patch: pytest.MonkeyPatch, transaction: type, error: Exception
    ) -> None:
        commit = transaction.commit

        async def commit_unheard(itself: object) -> None:
            await commit(itself)
            if self.commits_are_lost:
                itself.committing = True
                raise error

        patch.setattr(transaction, "commit", commit_unheard)


async def _nothing() -> None: ...


@dataclass(frozen=True)
class SharedDatabase:
    """An empty database.

    Attributes:
        name: Its kind.
        open_store: Opens the store of one more server.
        violations: Returns what is wrong with the data.
        set_clock: Makes its time that of the world.
    """

    name: str
    open_store: Callable[[], Store]
    violations: Callable[[], Awaitable[list[str]]]
    set_clock: Callable[[], Awaitable[None]] = field(default=_nothing)


def in_memory(world: World) -> SharedDatabase:
    tables, locks = Tables(random.Random(0)), Locks(Counter())

    def open_store() -> Store:
        database = MemoryDatabase(tables, locks, lambda: Instant(world.now), DirectLink())
        return MemoryStore(database)

    async def wrong() -> list[str]:
        return memory_invariants.violations(tables)

    return SharedDatabase("memory", open_store, wrong)


@asynccontextmanager
async def on_sqlite(url: str) -> AsyncIterator[SharedDatabase]:
    async with _opened(url) as own:
        yield SharedDatabase("SQLite", lambda: _sql_store(url), lambda: violations(own))


@asynccontextmanager
async def on_postgresql(url: str, world: World) -> AsyncIterator[SharedDatabase]:
    clock = await asyncpg.connect(url)

    async def set_clock() -> None:
        await clock.execute(f"SELECT setval('clock.micros', {world.now})")

    try:
        await clock.execute(_POSTGRESQL_CLOCK)
        async with _opened(url) as own:
            yield SharedDatabase(
                "PostgreSQL", lambda: _sql_store(url), lambda: violations(own), set_clock
            )
    finally:
        await clock.close()


def _sql_store(url: str) -> Store:
    return SqlStore(_open(url))


def _open(url: str) -> Database:
    # Without limits of time: a machine that stands still for some seconds is no difference.
    return open_database(parse_url(url), seconds=None)


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    database = _open(url)
    try:
        yield database
    finally:
        await database.close()
