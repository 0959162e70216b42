"""The commands of `jobledger` that make one call: options in, calls, output."""

import itertools
import json
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, TypeVar

import click
import grpc

from jobledger_client import Job, JobStatus
from jobledger_client._channel import open_channel
from jobledger_client._commands_watch import top, watch
from jobledger_client._commands_worker import worker
from jobledger_client._durations import time_span
from jobledger_client._ending import EXIT_CODES, UNAVAILABLE, write
from jobledger_client._options import Connection, as_json_option, filter_options, read_labels
from jobledger_client._render import (
    ASSET_COLUMNS,
    JOB_COLUMNS,
    TRANSITION_COLUMNS,
    asset_row,
    header,
    job_card,
    job_row,
    status_name,
    to_json,
    transition_row,
)
from jobledger_client.errors import from_rpc_error

_STATUSES = [status_name(status) for status in JobStatus.values() if status]


# Without a command click would show its help as an error.
@click.group(
    epilog=EXIT_CODES,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--server",
    envvar="JOBLEDGER_SERVER",
    default="127.0.0.1:50051",
    show_default=True,
    show_envvar=True,
    metavar="HOST:PORT",
    help="The service.",
)
@click.option("--user", envvar="JOBLEDGER_USER", show_envvar=True, help="The owner of the jobs.")
@click.option("--token", envvar="JOBLEDGER_TOKEN", show_envvar=True, help="A bearer token.")
@click.option("--tls/--no-tls", default=False, show_default=True, help="Encrypt the connection.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long one call may take, retries included; a watch has no limit.",
)
@click.version_option(package_name="jobledger")
@click.pass_context
def jobledger(context: click.Context, /, **options: Any) -> None:
    """Create, list, watch, cancel and delete the jobs of a Jobledger service, or do them."""
    context.obj = Connection(**options)


jobledger.add_command(watch)
jobledger.add_command(top)
jobledger.add_command(worker)


@jobledger.command()
@click.argument("job_type", metavar="TYPE")
@click.option(
    "--parameters",
    metavar="JSON|@FILE|-",
    help="The input: a JSON object, or where to read it; - is stdin.",
)
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="May be repeated.")
@click.option("--request-id", help="Makes the command safe to repeat.")
@click.option(
    "--max-attempts",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many workers may die of it before it fails.",
)
@click.option(
    "--queue-timeout",
    type=time_span,
    metavar="TIME",
    help="How long it may wait for a worker: 90s, 7d.",
)
@click.option(
    "--run-timeout", type=time_span, metavar="TIME", help="How long it may run: 90s, 5m, 2h, 7d."
)
@as_json_option
@click.pass_obj
def create(
    connection: Connection,
    *,
    job_type: str,
    parameters: str | None,
    labels: tuple[str, ...],
    request_id: str | None,
    max_attempts: int,
    queue_timeout: timedelta | None,
    run_timeout: timedelta | None,
    as_json: bool,
) -> None:
    """Create a job and print its id."""
    with connection.open() as client:
        job = client.create_job(
            job_type,
            _parameters(parameters),
            labels=read_labels(labels),
            request_id=request_id,
            max_attempts=max_attempts,
            queue_timeout=queue_timeout,
            run_timeout=run_timeout,
        )
    write(to_json(job) if as_json else job.id)


@jobledger.command()
@click.argument("job_id", metavar="JOB")
@as_json_option
@click.pass_obj
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
    help="Only these; may be repeated.",
)
@filter_options
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="At most so many jobs; 0: all.",
)
@as_json_option
@click.pass_obj
def list_(
    connection: Connection,
    *,
    statuses: tuple[str, ...],
    job_types: tuple[str, ...],
    labels: tuple[str, ...],
    limit: int,
    as_json: bool,
) -> None:
    """List jobs, newest first."""
    with connection.open() as client:
        jobs = client.list_jobs(
            statuses=[JobStatus.Value(f"JOB_STATUS_{status}") for status in statuses],
            job_types=job_types,
            labels=read_labels(labels),
            page_size=min(limit, 1000) or 1000,
        )
        some: Iterable[Job] = itertools.islice(jobs, limit or None)
        _table(some, to_json if as_json else job_row, header(JOB_COLUMNS, "TYPE"))


@jobledger.command()
@click.argument("job_id", metavar="JOB")
@as_json_option
@click.pass_obj
def transitions(connection: Connection, *, job_id: str, as_json: bool) -> None:
    """List the steps of a job, oldest first."""
    with connection.open() as client:
        steps = client.list_transitions(job_id, page_size=1000)
        columns = header(TRANSITION_COLUMNS, "ACTOR  REASON")
        _table(steps, to_json if as_json else transition_row, columns)


@jobledger.command()
@click.argument("job_id", metavar="JOB")
@as_json_option
@click.pass_obj
def assets(connection: Connection, *, job_id: str, as_json: bool) -> None:
    """List what a job made, oldest first."""
    with connection.open() as client:
        made = client.list_assets(job_id, page_size=1000)
        _table(made, to_json if as_json else asset_row, header(ASSET_COLUMNS, "WHERE"))


@jobledger.command()
@click.argument("job_id", metavar="JOB")
@click.option("--reason", default="", help="Why, for people.")
@as_json_option
@click.pass_obj
def cancel(connection: Connection, *, job_id: str, reason: str, as_json: bool) -> None:
    """Cancel a job: at once where no worker has it, else its worker is asked to."""
    with connection.open() as client:
        job = client.cancel_job(job_id, reason)
    write(to_json(job) if as_json else f"{_outlook(job)} {job.id}")


def _outlook(job: Job) -> str:
    if not job.HasField("complete_time"):
        return "cancelling"
    cancelled = job.error.reason == "CANCELLED"
    return "cancelled" if cancelled else f"already {status_name(job.status)}"


@jobledger.command()
@click.argument("job_id", metavar="JOB")
@as_json_option
@click.pass_obj
def delete(connection: Connection, *, job_id: str, as_json: bool) -> None:
    """Delete a job that has ended."""
    with connection.open() as client:
        client.delete_job(job_id)
    write(json.dumps({"job_id": job_id, "deleted": True}) if as_json else f"deleted {job_id}")


@jobledger.command()
@click.pass_obj
def health(connection: Connection) -> int:
    """Ask the service whether it is serving; needs neither user nor token."""
    # No other command pays for these imports.
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    with open_channel(connection.server, connection.credentials()) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=connection.timeout
            )
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
    write(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    return 0 if answer.status == health_pb2.HealthCheckResponse.SERVING else UNAVAILABLE


_Row = TypeVar("_Row")


def _table(items: Iterable[_Row], render: Callable[[_Row], str], columns: str) -> None:
    for index, item in enumerate(items):
        if index == 0 and render is not to_json:
            write(columns)
        write(render(item))


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
