"""`jobledger-server check-access`."""

from pathlib import Path

import click

from jobledger_server.rpc.access.access import Access
from jobledger_server.rpc.access.access_file import BadAccessFile
from jobledger_server.rpc.access.lasting_calls import LastingCalls


@click.command(name="check-access")
@click.argument("file", type=click.Path(path_type=Path))
def check_access(file: Path) -> None:
    """Check an access file before a server uses it.

    It checks the key sets of its issuers, too, if they are files. Prints who may call what, and
    exits with 1 if a server could not use the file. It connects to nothing.
    """
    try:
        access = Access(file, LastingCalls())
    except BadAccessFile as error:
        raise click.ClickException(str(error)) from None
    for line in access.policy.summary():
        click.echo(line)
