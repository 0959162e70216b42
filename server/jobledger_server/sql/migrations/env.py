"""Runs migrations, on the connection that `schema.migrate` passes."""

from contextlib import nullcontext
from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from jobledger_server.sql.tables import metadata

# As Alembic would create it, with a second column: see `schema`.
_VERSION_TABLE = """
CREATE TABLE IF NOT EXISTS alembic_version (
    version_num VARCHAR(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY,
    schema_min VARCHAR(32)
)
"""

connection: Connection = context.config.attributes["connection"]


def _record_schema_min(*_: Any, **applied: Any) -> None:
    """Write what the migration says, in its transaction. If it says nothing, it is its own."""
    migration = applied["step"].up_revision
    oldest = getattr(migration.module, "schema_min", migration.revision)
    connection.execute(text("UPDATE alembic_version SET schema_min = :min"), {"min": oldest})


with nullcontext() if connection.in_transaction() else connection.begin():
    connection.execute(text(_VERSION_TABLE))
context.configure(
    connection=connection,
    target_metadata=metadata,
    # SQLite can change a table only by copying it.
    render_as_batch=True,
    # Unless the connection is in one already.
    transaction_per_migration=True,
    on_version_apply=_record_schema_min,
)
with context.begin_transaction():
    context.run_migrations()
