"""The schema's revision: migrates a database to it, or checks it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from jobledger_server.sql.database import Database
from jobledger_server.sql.database_errors import DROPPED_SETTINGS, cause_of, pooler_cause
from jobledger_server.store import StoreUnavailable

HEAD = "0001"
"""The revision that this code needs: the newest in `migrations/versions`."""

MIGRATION_LOCK = 0x6A6F626C
"""The advisory lock of a migration, since two servers may start at once: an arbitrary number."""


class SchemaError(Exception):
    """The database is at another revision than this code needs; the message says what to do."""


async def migrate(database: Database) -> None:
    """Migrate the database to HEAD. Idempotent, and safe if several processes do it at once.

    A newer database is not changed. Raises StoreUnavailable.
    """
    with _translating(database):
        async with database.writer.begin() as connection:
            if database.dialect.name == "postgresql":
                await connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            found = await connection.run_sync(_revision)
            if found is None or found < HEAD:
                await connection.run_sync(_upgrade)


async def require_head(database: Database) -> None:
    """Raise SchemaError unless the database is at HEAD. Raises StoreUnavailable."""
    with _translating(database):
        async with database.reader.connect() as connection:
            if database.dialect.name == "postgresql":
                await _require_settings(connection)
            found = await connection.run_sync(_revision)
    if found == HEAD:
        return
    if found is None or found < HEAD:
        raise SchemaError(
            f"the database is at revision {found or 'none'}, this server needs {HEAD}: "
            "run `jobledger-server migrate` with the same --database first"
        )
    raise SchemaError(
        f"the database is at revision {found}, newer than this server's {HEAD}: "
        "run a newer jobledger-server"
    )


async def _require_settings(connection: AsyncConnection) -> None:
    """Raise StoreUnavailable if a session has not the settings that it was opened with."""
    if await connection.scalar(text("SHOW plan_cache_mode")) != "force_custom_plan":
        raise StoreUnavailable(DROPPED_SETTINGS)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _upgrade(connection: Connection) -> None:
    # Not at the top of the file: importing it takes as long as starting a server, and a database
    # that is up to date does not need it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
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
