"""The command about the defaults of job types: types."""

from datetime import timedelta
from typing import Final

import click

from jobledger import JobType, JobTypeDefaults, RetryPolicy
from jobledger.cli.connection import Connection
from jobledger.cli.exit_codes import write
from jobledger.cli.options import Command, Listing, as_json_option, pass_connection
from jobledger.cli.render import clean, header, row, table, to_json
from jobledger.cli.times import duration
from jobledger.core.plain import plain

TYPE_COLUMNS: Final = (("TYPE", 24),)


@click.group(cls=Listing)
@as_json_option
@click.pass_context
def types(context: click.Context, *, as_json: bool) -> None:
    """List or set what jobs of a type have by default.

    Alone it lists the types that have defaults. They apply where the creation of a job says
    nothing: a job keeps what it was created with, whatever is set later. Where a type has no
    default either, that of the service applies; see `jobledger create --help`.

    For operators.
    """
    if context.invoked_subcommand is None:
        _list_types(as_json=as_json)


@pass_connection
def _list_types(connection: Connection, /, *, as_json: bool) -> None:
    with connection.open(all_users=True) as client:
        found = client.admin.list_job_types(page_size=1000)
        table(found, to_json if as_json else _type_row, header(TYPE_COLUMNS, "DEFAULTS"))


@types.command(name="set", cls=Command)
@click.argument("job_type", metavar="TYPE")
@click.option(
    "--max-attempts",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="How often a job is tried. 1: at most once.",
)
@click.option(
    "--initial-backoff", type=duration, help="How long a job waits before its second attempt."
)
@click.option(
    "--max-backoff", type=duration, help="How long a job waits before an attempt at most."
)
@click.option("--queue-timeout", type=duration, help="How long a job may wait for a worker.")
@click.option("--run-timeout", type=duration, help="How long a job may run.")
@click.option(
    "--stall-timeout",
    type=duration,
    help="How long a worker may make no progress before it loses a job.",
)
@click.option(
    "--priority",
    type=click.IntRange(0, 9),
    metavar="N",
    help="0 to 9: among jobs of the type, one with a higher priority is always started first.",
)
@click.option(
    "--retention",
    type=duration,
    help="How long a job is kept when it has ended: then it is deleted.",
)
@as_json_option
@pass_connection
def set_defaults(
    connection: Connection,
    /,
    *,
    job_type: str,
    max_attempts: int | None,
    initial_backoff: timedelta | None,
    max_backoff: timedelta | None,
    queue_timeout: timedelta | None,
    run_timeout: timedelta | None,
    stall_timeout: timedelta | None,
    priority: int | None,
    retention: timedelta | None,
    as_json: bool,
) -> None:
    """Set all defaults of a type: those that are not given are removed.

    It holds for all jobs that are created from now on, at every server. The first three options
    belong together: a job that is created with one of its own has nothing of them.
    """
    policy = None
    if (max_attempts, initial_backoff, max_backoff) != (None, None, None):
        policy = RetryPolicy(
            max_attempts=max_attempts or RetryPolicy().max_attempts,
            initial_backoff=initial_backoff,
            max_backoff=max_backoff,
        )
    if (policy, queue_timeout, run_timeout, stall_timeout, priority, retention) == (None,) * 6:
        raise click.UsageError("give a default; `jobledger types clear TYPE` removes all")
    with connection.open(all_users=True) as client:
        found = client.admin.set_job_type_defaults(
            job_type,
            retry_policy=policy,
            queue_timeout=queue_timeout,
            run_timeout=run_timeout,
            stall_timeout=stall_timeout,
            priority=priority,
            retention=retention,
        )
    _show(found, as_json=as_json)


@types.command(name="clear", cls=Command)
@click.argument("job_type", metavar="TYPE")
@as_json_option
@pass_connection
def clear_defaults(connection: Connection, /, *, job_type: str, as_json: bool) -> None:
    """Remove all defaults of a type.

    It does no harm if there are none. Jobs that were created with them keep what they have.
    """
    with connection.open(all_users=True) as client:
        client.admin.clear_job_type_defaults(job_type)
    _show(JobType(job_type=job_type, defaults=JobTypeDefaults()), as_json=as_json)


def _show(found: JobType, *, as_json: bool) -> None:
    words = f"type {found.job_type}: {_words(found.defaults) or 'no defaults'}"
    write(to_json(found) if as_json else clean(words))


def _type_row(found: JobType) -> str:
    return row(TYPE_COLUMNS, (found.job_type,), _words(found.defaults))


def _words(defaults: JobTypeDefaults) -> str:
    """Say what the defaults are; nothing if there are none."""
    policy = defaults.retry_policy
    said = [
        *([] if policy is None else [_policy(policy)]),
        *(
            f"{name.replace('_', ' ')} {plain(span)}"
            for name in ("queue_timeout", "run_timeout", "stall_timeout")
            if (span := getattr(defaults, name)) is not None
        ),
        *([] if defaults.priority is None else [f"priority {defaults.priority}"]),
        *([] if defaults.retention is None else [f"retention {plain(defaults.retention)}"]),
    ]
    return ", ".join(said)


def _policy(policy: RetryPolicy) -> str:
    if policy.max_attempts == 1:
        return "1 attempt"
    first, last = plain(policy.initial_backoff), plain(policy.max_backoff)
    return f"{policy.max_attempts} attempts after pauses of {first} to {last}"
