"""The commands about watch tokens."""

from datetime import timedelta

import click

from jobledger.cli.connection import Connection
from jobledger.cli.exit_codes import write
from jobledger.cli.options import Group, as_json_option, labels_option, pass_connection
from jobledger.cli.render import to_json
from jobledger.cli.times import duration


@click.group(cls=Group)
def token() -> None:
    """Make tokens with which browsers watch jobs, or revoke them all."""


@token.command()
@click.argument("job_id", metavar="[JOB]", default="")
@labels_option(
    "A token for all of the user's jobs with this label, instead of one job; repeatable."
)
@click.option(
    "--ttl",
    type=duration,
    help="How long the token is valid: 90s, 5m, 2h; at most 24h.  [default: 1h]",
)
@as_json_option
@pass_connection
def create(
    connection: Connection,
    /,
    *,
    job_id: str,
    labels: dict[str, str],
    ttl: timedelta | None,
    as_json: bool,
) -> None:
    """Print a token to watch one job, or the jobs with some labels.

    It permits nothing else, and shows neither parameters nor results. Whoever has it can read the
    jobs, until it expires or all tokens are revoked.
    """
    if bool(job_id) == bool(labels):
        raise click.UsageError("give a JOB, or --label")
    with connection.open() as client:
        made = client.create_watch_token(job_id, labels=labels, ttl=ttl)
    write(to_json(made) if as_json else made.token)


@token.command()
@pass_connection
def revoke(connection: Connection) -> None:
    """Make all tokens of all users invalid.

    They are refused at every server of the database. Pages that were opened with one lose their
    connection within seconds, and need a new token.

    For operators.
    """
    with connection.open(all_users=True) as client:
        client.admin.revoke_watch_tokens()
