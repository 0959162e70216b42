"""`jobledger-server migrate`, `check` and `void-tokens`: commands that maintain a database."""

from contextlib import nullcontext
from typing import Any

import click

from jobledger_server.check.invariants import violations
from jobledger_server.check.repair import repair_feed
from jobledger_server.cli.options import database_options
from jobledger_server.cli.running import run
from jobledger_server.database.file_lock import exclusive, require_file
from jobledger_server.database.url import parse_url
from jobledger_server.sql.database import open_database
from jobledger_server.sql.schema import HEAD, require_supported
from jobledger_server.sql.schema import migrate as migrate_database
from jobledger_server.sql.sql_store import SqlStore
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
        database = open_database(parsed, seconds=None)
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


@click.command()
@click.option(
    "--repair", is_flag=True, help="Mend the feed. Stop all servers first, and make a backup."
)
@database_options
def check(database: str, *, repair: bool, **_: Any) -> None:
    """Check that the tables of a database agree. Reads only, and is safe while servers run.

    Exits with 1 and names what is wrong: a change that the feed lacks, a counter that is not what
    a recount says, a payload without its job. It reads every row of every table, in one snapshot.

    With --repair, rows of the feed that are wrong are made again from their jobs, and all resume
    tokens are void then. What else is wrong stays, and is named.
    """
    run(lambda: _check(database, repair=repair))


async def _check(url: str, *, repair: bool) -> None:
    parsed = parse_url(url)
    require_file(parsed)
    with exclusive(parsed) if repair else nullcontext():
        database = open_database(parsed, seconds=None)
        try:
            await require_supported(database)
            if repair:
                click.echo(
                    f"jobs whose rows in the feed were made again: {await repair_feed(database)}"
                )
            wrong = await violations(database)
        finally:
            await database.close()
    for line in wrong:
        click.echo(line)
    if wrong:
        raise click.ClickException("the database is damaged, as the lines above say")
    click.echo("the database is sound")


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
