"""The commands for groups: jobs that end with the jobs that belong to them."""

from typing import Unpack

import click

from jobledger import GroupOptions
from jobledger.cli.connection import Connection
from jobledger.cli.exit_codes import write
from jobledger.cli.options import (
    Group,
    as_json_option,
    group_option,
    labels_option,
    not_empty_if_given,
    parameters_option,
    pass_connection,
    read_parameters,
)
from jobledger.cli.render import to_json
from jobledger.cli.times import duration


@click.group(cls=Group)
def group() -> None:
    """Make many jobs one: a group ends when all its jobs have ended.

    Create a group, then its jobs with `jobledger create --group`, then seal it. A group is a job
    that no worker runs: get, watch, cancel, rerun and delete take its id.
    """


@group.command()
@click.argument("job_type", metavar="TYPE")
@parameters_option
@click.option(
    "--fail-fast",
    is_flag=True,
    help="Cancel its other jobs when the first one has failed.",
)
@labels_option("A label to find the group by; may be repeated.")
@click.option(
    "--request-id",
    metavar="TEXT",
    callback=not_empty_if_given,
    help="Makes the command safe to repeat: the same id returns the same group.",
)
@click.option(
    "--unique-key",
    metavar="KEY",
    default="",
    callback=not_empty_if_given,
    help="Of the user's jobs of this type, only one with this key may wait or run.",
)
@click.option(
    "--queue-timeout",
    type=duration,
    help="How long jobs can be added: 90s, 5m, 2h. Then it is sealed.  [default: 7d]",
)
@group_option("The group that this group belongs to.")
@as_json_option
@pass_connection
def create(
    connection: Connection,
    /,
    *,
    job_type: str,
    parameters: str | None,
    fail_fast: bool,
    as_json: bool,
    **options: Unpack[GroupOptions],
) -> None:
    """Create a group and print its id."""
    with connection.open() as client:
        job = client.create_group(
            job_type, read_parameters(parameters), fail_fast=fail_fast, **options
        )
    if job.existing:
        click.echo(f"group {job.id} was there before", err=True)
    write(to_json(job) if as_json else job.id)


@group.command()
@click.argument("group_id", metavar="GROUP")
@as_json_option
@pass_connection
def seal(connection: Connection, *, group_id: str, as_json: bool) -> None:
    """Let a group end with its jobs: none can be added any more.

    It ends when all of them have ended, or at once if they have. The same command again changes
    nothing.
    """
    with connection.open() as client:
        job = client.seal_group(group_id)
    write(to_json(job) if as_json else f"sealed {job.id}")
