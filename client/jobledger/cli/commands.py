"""The commands of `jobledger` that make calls: options in, calls, output."""

import itertools
import json
import sys
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, TypeVar, Unpack

import click
import grpc

from jobledger import Job, JobledgerError, JobOptions, JobStatus
from jobledger.cli.connection import Connection
from jobledger.cli.exit_codes import EXIT_CODES, UNAVAILABLE, print_error, verdict, write
from jobledger.cli.options import (
    Group,
    all_users_option,
    as_json_option,
    filter_options,
    labels_option,
    pass_connection,
)
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
    to_json,
    transition_row,
)
from jobledger.cli.times import moment, time_span
from jobledger.cli.watch_commands import top, watch
from jobledger.cli.worker_command import worker
from jobledger.core.channel import open_channel
from jobledger.errors import from_rpc_error

_STATUSES = [status.value for status in JobStatus if status is not JobStatus.UNKNOWN]


@click.command(
    cls=Group, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="jobledger", prog_name="jobledger")
def jobledger() -> None:
    """Create, list, watch, cancel, delete and run the jobs of a Jobledger service.

    The options below may also follow the command. Options that are not given are taken
    from the environment, then from a profile in ~/.config/jobledger/config.toml.
    """


@jobledger.command()
@click.argument("job_type", metavar="TYPE")
@click.option(
    "--parameters",
    metavar="JSON|@FILE|-",
    help="The input: a JSON object, a file that holds one, or - for stdin.",
)
@labels_option("A label to find the job by; may be repeated.")
@click.option(
    "--request-id",
    metavar="TEXT",
    help="Makes the command safe to repeat: the same id returns the same job.",
)
@click.option(
    "--max-attempts",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="How many attempts may be lost before the job fails. With 2 it is started again once if"
    " its worker dies. An attempt that a worker releases does not count.",
)
@click.option(
    "--queue-timeout",
    type=time_span,
    metavar="TIME",
    help="How long the job may wait for a worker: 90s, 5m, 2h.  [default: 7d]",
)
@click.option(
    "--run-timeout",
    type=time_span,
    metavar="TIME",
    help="How long the job may run: 90s, 5m, 2h.  [default: no limit]",
)
@click.option(
    "--stall-timeout",
    type=time_span,
    metavar="TIME",
    help="How long a worker may make no progress before it loses the job.  [default: no limit]",
)
@as_json_option
@pass_connection
def create(
    connection: Connection,
    *,
    job_type: str,
    parameters: str | None,
    as_json: bool,
    **options: Unpack[JobOptions],
) -> None:
    """Create a job and print its id.

    TYPE names the kind of work, for example render; workers claim jobs by it.
    """
    with connection.open() as client:
        job = client.create_job(job_type, _parameters(parameters), **options)
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
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice(_STATUSES, case_sensitive=False),
    help="Only jobs with this status; repeat it for several.",
)
@all_users_option
@filter_options
@click.option(
    "--created-after",
    type=moment,
    metavar="WHEN",
    help="Only jobs created later: 2026-11-01, 2026-11-01T15:30Z, or 2h for 2 hours ago.",
)
@click.option("--created-before", type=moment, metavar="WHEN", help="Only jobs created earlier.")
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
    connection: Connection,
    *,
    statuses: tuple[str, ...],
    all_users: bool,
    job_types: tuple[str, ...],
    labels: dict[str, str],
    created_after: datetime | None,
    created_before: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """List jobs, newest first, without their parameters and results.

    A job whose status is PROCESSING is shown as WAITING while no worker holds it. Dates without an
    offset are UTC.
    """
    with connection.open(all_users=all_users) as client:
        jobs = client.list_jobs(
            statuses=[JobStatus(status) for status in statuses],
            job_types=job_types,
            labels=labels,
            created_after=created_after,
            created_before=created_before,
            page_size=min(limit, 1000) or 1000,
            all_users=all_users,
        )
        some = itertools.islice(jobs, limit or None)
        columns, show = (OWNED_JOB_COLUMNS, owned_job_row) if all_users else (JOB_COLUMNS, job_row)
        _table(some, to_json if as_json else show, header(columns, "TYPE"))


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
        columns = header(TRANSITION_COLUMNS, "ACTOR  REASON")
        _table(steps, to_json if as_json else transition_row, columns)


@jobledger.command()
@click.argument("job_id", metavar="JOB")
@as_json_option
@pass_connection
def attempts(connection: Connection, *, job_id: str, as_json: bool) -> None:
    """List the attempts to run a job, oldest first, and how each of them ended."""
    with connection.open() as client:
        made = client.list_attempts(job_id, page_size=1000)
        _table(made, to_json if as_json else attempt_row, header(ATTEMPT_COLUMNS, "WORKER  ERROR"))


@jobledger.command()
@click.argument("job_id", metavar="JOB")
@as_json_option
@pass_connection
def assets(connection: Connection, *, job_id: str, as_json: bool) -> None:
    """List what a job has made, oldest first."""
    with connection.open() as client:
        made = client.list_assets(job_id, page_size=1000)
        _table(made, to_json if as_json else asset_row, header(ASSET_COLUMNS, "WHERE"))


@jobledger.command()
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@click.option("--reason", metavar="TEXT", default="", help="Why, for people.")
@as_json_option
@pass_connection
def cancel(connection: Connection, *, job_ids: tuple[str, ...], reason: str, as_json: bool) -> int:
    """Cancel jobs.

    A job that waits for a worker is FAILED at once. The worker of a running job is asked to stop.
    If one of several jobs cannot be cancelled the others are; the exit code is the highest.
    """
    with connection.open() as client:

        def cancel(job_id: str) -> str:
            job = client.cancel_job(job_id, reason)
            return to_json(job) if as_json else f"{_cancelled(job)} {job.id}"

        return _for_each(job_ids, cancel)


def _cancelled(job: Job) -> str:
    if not job.is_terminal:
        return "cancelling"
    if job.error is not None and job.error.reason == "CANCELLED":
        return "cancelled"
    return f"already {job.status}"


@jobledger.command()
@click.argument("job_ids", metavar="JOB...", nargs=-1, required=True)
@as_json_option
@pass_connection
def delete(connection: Connection, *, job_ids: tuple[str, ...], as_json: bool) -> int:
    """Delete jobs that are COMPLETED, PARTIAL or FAILED.

    If one of several jobs cannot be deleted the others are; the exit code is the highest.
    """
    with connection.open() as client:

        def delete(job_id: str) -> str:
            client.delete_job(job_id)
            answer = {"job_id": job_id, "deleted": True}
            return json.dumps(answer) if as_json else f"deleted {job_id}"

        return _for_each(job_ids, delete)


jobledger.add_command(worker)


@jobledger.command()
@as_json_option
@pass_connection
def health(connection: Connection, *, as_json: bool) -> int:
    """Check that the service is serving.

    Needs neither user nor token.
    """
    # No other command pays for these imports.
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    with open_channel(connection.server, connection.credentials) as channel:
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


_Row = TypeVar("_Row")


def _table(items: Iterable[_Row], render: Callable[[_Row], str], columns: str) -> None:
    rows = iter(items)
    # A call that fails prints nothing, not even the header.
    first = list(itertools.islice(rows, 1))
    if render is not to_json:
        write(columns)
    for item in itertools.chain(first, rows):
        write(render(item))


def _for_each(job_ids: Iterable[str], call: Callable[[str], str]) -> int:
    """Print what the call returns for each job, or its error; return the highest exit code."""
    worst, unavailable = 0, False
    for job_id in dict.fromkeys(job_ids):
        if unavailable:
            # Each further call would take as long to fail.
            print_error(f"{job_id}: not tried")
            continue
        try:
            write(call(job_id))
        except JobledgerError as error:
            message, code = verdict(error)
            print_error(message if job_id in message else f"{job_id}: {message}")
            worst, unavailable = max(worst, code), code == UNAVAILABLE
    return worst


def _parameters(given: str | None) -> dict[str, Any] | None:
    if given is None:
        return None
    try:
        if given == "-":
            given = sys.stdin.read()
        elif given.startswith("@"):
            with click.open_file(given[1:], encoding="utf-8") as file:
                given = file.read()
        value = json.loads(given)
    except OSError as error:
        raise click.UsageError(f"--parameters: {error.strerror}: {error.filename}") from None
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--parameters: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise click.UsageError("--parameters: not a JSON object")
    return value
