"""The commands of `jobledger` that make calls: options in, calls, output."""

import itertools
import json
from datetime import timedelta
from typing import Any, Unpack

import click
import grpc

from jobledger import JobOptions, JobStatus, RetryPolicy, UniquePolicy
from jobledger.cli.bulk_commands import cancel, delete, rerun
from jobledger.cli.connection import Connection
from jobledger.cli.exit_codes import EXIT_CODES, UNAVAILABLE, write
from jobledger.cli.filters import job_filters, selected
from jobledger.cli.group_commands import group
from jobledger.cli.logs_command import logs
from jobledger.cli.options import (
    Group,
    all_users_option,
    as_json_option,
    group_option,
    labels_option,
    not_empty_if_given,
    parameters_option,
    pass_connection,
    read_parameters,
)
from jobledger.cli.queue_commands import explain, limits, pause, resume, stats
from jobledger.cli.render import (
    ASSET_COLUMNS,
    ATTEMPT_COLUMNS,
    JOB_COLUMNS,
    OWNED_JOB_COLUMNS,
    TRANSITION_COLUMNS,
    asset_row,
    attempt_row,
    header,
    job_card,
    job_row,
    owned_job_row,
    table,
    to_json,
    transition_row,
)
from jobledger.cli.times import date, duration
from jobledger.cli.token_commands import token
from jobledger.cli.type_commands import types
from jobledger.cli.update_command import update
from jobledger.cli.watch_commands import top, watch
from jobledger.cli.webhook_commands import webhook
from jobledger.cli.worker_command import worker
from jobledger.core.channel import open_channel, server_name_options
from jobledger.errors import from_rpc_error


@click.command(
    cls=Group, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="jobledger", prog_name="jobledger")
def jobledger() -> None:
    """Create, list, watch, run, rerun, cancel and delete the jobs of a Jobledger service.

    Operators count them, too, and pause and limit which ones may run.

    The options below may also follow the command. Options that are not given are taken
    from the environment, then from a profile in ~/.config/jobledger/config.toml.
    """


@jobledger.command()
@click.argument("job_type", metavar="TYPE")
@parameters_option
@labels_option("A label to find the job by; may be repeated.")
@click.option(
    "--request-id",
    metavar="TEXT",
    callback=not_empty_if_given,
    help="Makes the command safe to repeat: the same id returns the same job.",
)
@click.option(
    "--max-attempts",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="How often the job is tried. An attempt is used up when its worker dies, makes no progress"
    " or reports a retryable error; not when a worker releases it. 1: at most once."
    "  [default: 3]",
)
@click.option(
    "--initial-backoff",
    type=duration,
    help="How long the job waits before its second attempt: 0.5s, 90s, 5m. It waits twice as long"
    " before each further one.  [default: 1s]",
)
@click.option(
    "--max-backoff",
    type=duration,
    help="How long the job waits before an attempt at most.  [default: 5m]",
)
@click.option(
    "--at",
    "schedule_time",
    type=date,
    metavar="TIME",
    help="No worker gets the job before: 2026-11-01T15:30Z, or 2026-11-01 for its first second."
    " Without an offset it is UTC.",
)
@click.option(
    "--delay",
    type=duration,
    help="No worker gets the job sooner than in 90s, 5m, 2h.",
)
@click.option(
    "--priority",
    type=click.IntRange(0, 9),
    metavar="N",
    help="0 to 9: among jobs of its type, one with a higher priority is always started first."
    "  [default: 5]",
)
@click.option(
    "--fairness-key",
    metavar="KEY",
    default="",
    callback=not_empty_if_given,
    help="The tenant that the job is counted for: workers take the jobs of different tenants in"
    " turn, however many each has.  [default: the user]",
)
@click.option(
    "--concurrency-key",
    metavar="KEY",
    default="",
    callback=not_empty_if_given,
    help="What the job uses that bears only so much at once, for example stripe: an operator can"
    " limit how many jobs with this key run; see `jobledger limits --help`.",
)
@click.option(
    "--unique-key",
    metavar="KEY",
    default="",
    callback=not_empty_if_given,
    help="Of the user's jobs of this type, only one with this key may wait or run.",
)
@click.option(
    "--unique-policy",
    type=click.Choice([policy.value for policy in UniquePolicy], case_sensitive=False),
    help="What happens if there is one: the command fails, or prints the id of that job."
    "  [default: reject]",
)
@click.option(
    "--queue-timeout",
    type=duration,
    help="How long the job may wait for a worker, from --at or --delay on: 90s, 5m, 2h."
    "  [default: 7d]",
)
@click.option(
    "--run-timeout",
    type=duration,
    help="How long the job may run: 90s, 5m, 2h.  [default: no limit]",
)
@click.option(
    "--stall-timeout",
    type=duration,
    help="How long a worker may make no progress before it loses the job.  [default: no limit]",
)
@click.option(
    "--refuse-output",
    is_flag=True,
    help="Refuse output that is more than the service keeps of a job. Otherwise the oldest goes.",
)
@group_option("The group that the job belongs to; see `jobledger group --help`.")
@as_json_option
@pass_connection
def create(
    connection: Connection,
    *,
    job_type: str,
    parameters: str | None,
    max_attempts: int | None,
    initial_backoff: timedelta | None,
    max_backoff: timedelta | None,
    as_json: bool,
    **options: Unpack[JobOptions],
) -> None:
    """Create a job and print its id.

    TYPE names the kind of work, for example render; workers claim jobs by it. An operator may have
    set other defaults for it; see `jobledger types --help`. If the job was there before, by its
    request id or unique key, that is said on standard error.
    """
    if (max_attempts, initial_backoff, max_backoff) != (None, None, None):
        # Not always: a creation without a policy has the service's defaults.
        options["retry_policy"] = RetryPolicy(
            max_attempts=max_attempts or RetryPolicy().max_attempts,
            initial_backoff=initial_backoff,
            max_backoff=max_backoff,
        )
    if options.get("delay") is not None and options.get("schedule_time") is not None:
        raise click.UsageError("give --at or --delay, not both")
    with connection.open() as client:
        job = client.create_job(job_type, read_parameters(parameters), **options)
    if job.existing:
        click.echo(f"job {job.id} was there before", err=True)
    write(to_json(job) if as_json else job.id)


@jobledger.command()
@click.argument("job_id", metavar="JOB")
@as_json_option
@pass_connection
def get(connection: Connection, *, job_id: str, as_json: bool) -> None:
    """Show a job."""
    with connection.open() as client:
        job = client.get_job(job_id)
    for line in [to_json(job)] if as_json else job_card(job):
        write(line)


@jobledger.command(name="list")
@job_filters(status for status in JobStatus if status is not JobStatus.UNKNOWN)
@all_users_option
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    default=50,
    show_default=True,
    help="How many jobs at most; 0 for all.",
)
@as_json_option
@pass_connection
def list_(
    connection: Connection, /, *, all_users: bool, limit: int, as_json: bool, **filters: Any
) -> None:
    """List jobs, newest first, without their parameters and results.

    STATUS is what a job does now: it is SCHEDULED, QUEUED, RUNNING, WAITING FOR RETRY or
    CANCELLING, or has ended as COMPLETED, PARTIAL, FAILED or CANCELLED. REASON is why a job failed,
    or until when it waits and why its last attempt ended. Dates without an offset are UTC.
    """
    with connection.open(all_users=all_users) as client:
        jobs = client.list_jobs(
            page_size=min(limit, 1000) or 1000, all_users=all_users, **selected(filters)
        )
        some = itertools.islice(jobs, limit or None)
        columns, show = (OWNED_JOB_COLUMNS, owned_job_row) if all_users else (JOB_COLUMNS, job_row)
        table(some, to_json if as_json else show, header(columns, "REASON"))


jobledger.add_command(watch)
jobledger.add_command(top)


@jobledger.command()
@click.argument("job_id", metavar="JOB")
@as_json_option
@pass_connection
def transitions(connection: Connection, *, job_id: str, as_json: bool) -> None:
    """List a job's changes of status, oldest first."""
    with connection.open() as client:
        steps = client.list_transitions(job_id, page_size=1000)
        columns = header(TRANSITION_COLUMNS, "REASON")
        table(steps, to_json if as_json else transition_row, columns)


@jobledger.command()
@click.argument("job_id", metavar="JOB")
@as_json_option
@pass_connection
def attempts(connection: Connection, *, job_id: str, as_json: bool) -> None:
    """List the attempts to run a job, and how each ended.

    The oldest comes first.
    """
    with connection.open() as client:
        made = client.list_attempts(job_id, page_size=1000)
        table(made, to_json if as_json else attempt_row, header(ATTEMPT_COLUMNS, "ERROR"))


@jobledger.command()
@click.argument("job_id", metavar="JOB")
@as_json_option
@pass_connection
def assets(connection: Connection, *, job_id: str, as_json: bool) -> None:
    """List what a job has made, oldest first."""
    with connection.open() as client:
        made = client.list_assets(job_id, page_size=1000)
        table(made, to_json if as_json else asset_row, header(ASSET_COLUMNS, "WHERE"))


for command in (group, logs, explain, update, rerun, cancel, delete, worker):
    jobledger.add_command(command)
for command in (stats, pause, resume, limits, types, token, webhook):
    jobledger.add_command(command)


@jobledger.command()
@as_json_option
@pass_connection
def health(connection: Connection, *, as_json: bool) -> int:
    """Check that the service is serving.

    Needs neither user nor token.
    """
    # No other command pays for these imports.
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    name = server_name_options(connection.tls_server_name)
    with open_channel(connection.server, connection.credentials, (), *name) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=connection.timeout
            )
        except grpc.RpcError as error:
            raise from_rpc_error(
                error, target=connection.server, timeout=connection.timeout
            ) from error
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    write(json.dumps({"status": status}) if as_json else status)
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else UNAVAILABLE
