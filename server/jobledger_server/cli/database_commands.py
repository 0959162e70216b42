"""`jobledger-server migrate` and `void-tokens`: commands that maintain a database."""

from typing import Any

import click

from jobledger_server.cli.options import database_options
from jobledger_server.cli.running import run
from jobledger_server.sql.database import open_database
from jobledger_server.sql.database_url import parse_url
from jobledger_server.sql.schema import HEAD, require_supported
from jobledger_server.sql.schema import migrate as migrate_database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.sql.sqlite.file_lock import exclusive
from jobledger_server.telemetry.logs import logging_to_stderr


@click.command()
@database_options
def migrate(database: str, **_: Any) -> None:
    """Migrate a database to this version's schema. Safe to repeat, also while servers run.

    A newer database is not changed.
    """
    with logging_to_stderr("info"):
        run(lambda: _migrate(database))


async def _migrate(url: str) -> None:
    parsed = parse_url(url)
    with exclusive(parsed):
        database = open_database(parsed, unlimited=True)
        try:
            await migrate_database(database)
            revision = await require_supported(database)
        finally:
            await database.close()
    if revision == HEAD:
        click.echo(f"the database is at revision {HEAD}")
    else:
        click.echo(
            f"the database is at revision {revision}, newer than this server's {HEAD}, which works"
            " with it: nothing was changed"
        )


@click.command(name="void-tokens")
@database_options
def void_tokens(database: str, **_: Any) -> None:
    """Void all resume tokens of WatchJobs.

    Use it after restoring a whole volume. A server detects by itself that its database was
    copied, was restored over an existing one, or is a standby that took over. It cannot detect
    that a whole folder was restored. Watches with a void token have to list their jobs again.
    """
    run(lambda: _void_tokens(database))
    click.echo("all resume tokens are void now")


async def _void_tokens(url: str) -> None:
    parsed = parse_url(url)
    with exclusive(parsed, create=False):
        database = open_database(parsed)
        try:
            await require_supported(database)
            store = SqlStore(database)
            await store.renew_epoch((await store.feed_head()).epoch)
        finally:
            await database.close()
