"""The schema's revision: migrates a database to it, and checks whether this server works with it.

The table `alembic_version` holds the newest migration that was applied, and in `schema_min` the
oldest server that works with it, by the revision that this server was made for. So a database that
was migrated for the next version still serves servers of the version before.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from jobledger_server.database.errors import DROPPED_SETTINGS, cause_of, pooler_cause
from jobledger_server.sql.database import Database
from jobledger_server.store import StoreUnavailable

_MIGRATIONS = Path(__file__).parent / "migrations"

HEAD = max(file.name for file in _MIGRATIONS.glob("versions/[0-9]*.py"))[:4]
"""The revision that this code was made for: the newest migration."""

MIGRATION_LOCK = 0x6A6F626C
"""The advisory lock of a migration, since two servers may start at once: an arbitrary number."""

POLL_SECONDS = 0.1
"""How often a migration asks whether another one has ended."""

LOCK_SECONDS = 2
"""How long a migration waits for a lock on a table. Whatever needs the table waits behind it."""

LOCK_TRIES = 30

LOCK_PAUSE_SECONDS = 8
"""Between two tries, in which everybody else goes on."""

_LOCK_ERRORS = frozenset({"55P03", "40P01"})
"""By SQLSTATE: lock_not_available (of `lock_timeout`), deadlock_detected."""

log = logging.getLogger("jobledger.schema")


class SchemaError(Exception):
    """The schema cannot be used, or not be migrated; the message says what to do."""


class Schema(NamedTuple):
    """What a database says of its schema."""

    head: str
    min: str
    """The oldest server that works with it: the HEAD of its code."""


async def migrate(database: Database) -> None:
    """Migrate the database to HEAD. Idempotent, and safe if several processes do it at once.

    A newer database is not changed. Raises SchemaError and StoreUnavailable.
    """
    with _translating(database):
        if database.dialect.name == "sqlite":
            # One transaction, which excludes other writers.
            async with database.writer.begin() as connection:
                await connection.run_sync(upgrade)
            return
        async with database.writer.connect() as connection:
            try:
                await _lock_out_other_migrations(connection)
                await connection.execute(text(f"SET lock_timeout = '{LOCK_SECONDS}s'"))
                await connection.commit()
                await _upgrade_when_unlocked(connection)
            finally:
                # Ends the session, and with it the advisory lock.
                await connection.invalidate()


async def require_supported(database: Database) -> str:
    """Return the database's revision. Raises StoreUnavailable.

    Raises SchemaError unless this server works with it: it is HEAD, or a newer one that says so.
    """
    with _translating(database):
        async with database.reader.connect() as connection:
            if database.dialect.name == "postgresql":
                await _require_settings(connection)
            found = await connection.run_sync(_schema)
    if found is None or found.head < HEAD:
        raise SchemaError(
            f"the database is at revision {found.head if found else 'none'}, this server needs "
            f"{HEAD}: run `jobledger-server migrate` with the same --database first"
        )
    if found.min > HEAD:
        raise SchemaError(
            f"the database is at revision {found.head}, which needs servers for {found.min} or "
            f"newer, and this one is for {HEAD}: run a newer jobledger-server"
        )
    return found.head


async def _require_settings(connection: AsyncConnection) -> None:
    """Raise StoreUnavailable if a session has not the settings that it was opened with."""
    if await connection.scalar(text("SHOW plan_cache_mode")) != "force_custom_plan":
        raise StoreUnavailable(DROPPED_SETTINGS)


async def _lock_out_other_migrations(connection: AsyncConnection) -> None:
    """Take the advisory lock, for the session.

    A session that waits in the statement would have a snapshot, and CREATE INDEX CONCURRENTLY
    of the other migration would wait for it.
    """
    while not await connection.scalar(text(f"SELECT pg_try_advisory_lock({MIGRATION_LOCK})")):
        await connection.rollback()
        await asyncio.sleep(POLL_SECONDS)


async def _upgrade_when_unlocked(connection: AsyncConnection) -> None:
    """Migrate; repeat what did not get its lock in time. What was migrated before stays."""
    for tries in range(1, LOCK_TRIES + 1):
        try:
            await connection.run_sync(upgrade)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _LOCK_ERRORS:
                raise
            statement, cause = " ".join((error.statement or "").split())[:200], cause_of(error)
            await connection.rollback()
        else:
            return
        log.warning(
            "migration_waits_for_lock",
            extra={"statement": statement, "cause": cause, "tries": tries},
        )
        if tries < LOCK_TRIES:
            await asyncio.sleep(LOCK_PAUSE_SECONDS)
    raise SchemaError(
        f"another session holds a lock that the migration needs, and has not released it in "
        f"{LOCK_TRIES} tries: end its transaction, and migrate again. The statement was: "
        f"{statement}"
    )


def _schema(connection: Connection) -> Schema | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num, schema_min FROM alembic_version")).first()
    return None if found is None else Schema(*found)


def upgrade(connection: Connection) -> None:
    """Migrate to HEAD in the connection's transaction, else in one for each migration."""
    within = connection.in_transaction()
    found = _schema(connection)
    if not within:
        connection.rollback()
    if found is not None and found.head >= HEAD:
        return
    # Not at the top of the file: importing it takes as long as starting a server, and a database
    # that is up to date does not need it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_MIGRATIONS))
    command.upgrade(config, "head")


@contextmanager
def _translating(database: Database) -> Iterator[None]:
    try:
        yield
    except database.unavailable_errors as error:
        cause = pooler_cause(error) or cause_of(error)
        # Without the driver, which the operator did not write.
        name = database.url.set(drivername=database.dialect.name, query={}).render_as_string()
        message = f"cannot use the database {name}: {cause}"
        raise StoreUnavailable(message) from error
