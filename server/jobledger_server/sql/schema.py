"""The schema's version: bring a database up to it, or say that it is not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from jobledger_server.sql.database import Database
from jobledger_server.store import StoreUnavailable

HEAD = "0001"
"""The revision that this code works with: the newest below `migrations/versions`."""

# Two servers that start at once must not both migrate. Any number that nobody else uses.
MIGRATION_LOCK = 0x6A6F626C


class SchemaError(Exception):
    """The database is at another revision than this code; the message says what to do."""


async def migrate(database: Database) -> None:
    """Bring the database up to HEAD. Idempotent; safe where several do it at once.

    A database that is newer is left alone. Raises StoreUnavailable.
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


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _upgrade(connection: Connection) -> None:
    # Not at the top of the file: it takes as long to import as a server to start, and a
    # database that is up to date needs none of it.
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
        cause = str(getattr(error, "orig", None) or error)
        # As it was given: the driver is nobody's business.
        where = database.url.set(drivername=database.dialect.name, query={}).render_as_string()
        message = f"cannot use the database {where}: {cause}"
        raise StoreUnavailable(message) from error
