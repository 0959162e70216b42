"""Runs a migration, on the connection that `schema.migrate` passes."""

from alembic import context

from jobledger_server.sql.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can change a table only by copying it.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
