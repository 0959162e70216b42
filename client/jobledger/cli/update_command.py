"""The command that changes a job that is not started."""

from datetime import UTC, datetime
from typing import Final

import click

from jobledger.cli.connection import Connection
from jobledger.cli.exit_codes import write
from jobledger.cli.options import Command, as_json_option, pass_connection
from jobledger.cli.render import to_json
from jobledger.cli.times import date

LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""Has passed by any clock."""


@click.command(cls=Command)
@click.argument("job_id", metavar="JOB")
@click.option(
    "--priority",
    type=click.IntRange(0, 9),
    metavar="N",
    help="0 to 9: among jobs of its type, one with a higher priority is always started first.",
)
@click.option(
    "--at",
    "schedule_time",
    type=date,
    metavar="TIME",
    help="No worker gets the job before: 2026-11-01T15:30Z, or 2026-11-01 for its first second."
    " Without an offset it is UTC.",
)
@click.option("--now", is_flag=True, help="The job may start at once.")
@click.option(
    "--expected-version",
    type=click.IntRange(min=1),
    metavar="N",
    help="Fail if the job has changed since it had this version.",
)
@as_json_option
@pass_connection
def update(
    connection: Connection,
    *,
    job_id: str,
    priority: int | None,
    schedule_time: datetime | None,
    now: bool,
    expected_version: int | None,
    as_json: bool,
) -> None:
    """Change the priority or the time of a job that is not started.

    The same command again changes nothing. A job that was started cannot be changed.
    """
    if now and schedule_time is not None:
        raise click.UsageError("give --at or --now, not both")
    if priority is None and schedule_time is None and not now:
        raise click.UsageError("change what? Give --priority, --at or --now")
    with connection.open() as client:
        job = client.update_job(
            job_id,
            priority=priority,
            schedule_time=LONG_AGO if now else schedule_time,
            expected_version=expected_version,
        )
    write(to_json(job) if as_json else f"updated {job.id}")
