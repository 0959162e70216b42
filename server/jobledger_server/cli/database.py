"""`jobledger-server migrate` and `void-tokens`: what is done to a database from outside."""

from typing import Any

import click

from jobledger_server.cli.options import database_options
from jobledger_server.cli.running import run
from jobledger_server.sql.database import open_database
from jobledger_server.sql.database_url import parse_url
from jobledger_server.sql.schema import HEAD, require_head
from jobledger_server.sql.schema import migrate as migrate_database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.sql.sqlite.file_lock import exclusive


@click.command()
@database_options
def migrate(database: str, **_: Any) -> None:
    """Bring a database up to date. Safe to repeat, also while servers run."""
    run(lambda: _migrate(database))
    click.echo(f"the database is at revision {HEAD}")


async def _migrate(url: str) -> None:
    parsed = parse_url(url)
    with exclusive(parsed):
        database = open_database(parsed, unlimited=True)
        try:
            await migrate_database(database)
            await require_head(database)
        finally:
            await database.close()


@click.command(name="void-tokens")
@database_options
def void_tokens(database: str, **_: Any) -> None:
    """Make every resume token of WatchJobs void: after restoring a whole volume.

    A server finds out by itself that a database was copied, restored over an
    existing one, or taken over by a standby. It cannot where the folder came back
    as a whole. Watchers then list their jobs again.
    """
    run(lambda: _void_tokens(database))
    click.echo("every resume token is void now")


async def _void_tokens(url: str) -> None:
    parsed = parse_url(url)
    with exclusive(parsed):
        database = open_database(parsed)
        try:
            await require_head(database)
            store = SqlStore(database)
            await store.renew_epoch((await store.feed_head()).epoch)
        finally:
            await database.close()
