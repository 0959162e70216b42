"""The commands about what waits: stats, explain, pause, resume and limits."""

import json

import click

from jobledger import ConcurrencyLimit, Pause
from jobledger.cli.connection import Connection
from jobledger.cli.exit_codes import write
from jobledger.cli.options import Command, Listing, as_json_option, pass_connection
from jobledger.cli.queue_tables import (
    LIMIT_COLUMNS,
    STATS_COLUMNS,
    limit_row,
    stats_card,
    stats_row,
)
from jobledger.cli.render import clean, header, table, to_json
from jobledger.cli.wait_sentences import explanation_lines, paused
from jobledger.core.plain import plain


@click.command(cls=Command)
@click.argument("job_types", metavar="[TYPE...]", nargs=-1)
@click.option(
    "--fairness-key",
    metavar="KEY",
    default="",
    help="Only the jobs of this tenant: those that were created with this key or, without one, by"
    " the user of this name. Leaves out what ended.",
)
@as_json_option
@pass_connection
def stats(
    connection: Connection, /, *, job_types: tuple[str, ...], fairness_key: str, as_json: bool
) -> None:
    """Count the jobs of each type.

    READY is how many a worker could start now, OLDEST how long the first of them waits. BLOCKED
    is how many wait because the limit of their concurrency key is reached, or the key is paused.
    SCHEDULED is how many must not start yet. HELD is how many workers run. The last column says
    if the type is paused, or if no worker asks for it.

    Given TYPE..., it shows them in detail: by priority, and how jobs ended.

    For operators. The counts are exact, and cost the same for any number of jobs.
    """
    with connection.open(all_users=True) as client:
        counts = client.admin.list_job_type_stats(
            job_types, fairness_key=fairness_key, page_size=1000
        )
        if job_types and not as_json:
            for number, one in enumerate(counts):
                for line in [*([""] if number else []), *stats_card(one)]:
                    write(line)
            return
        table(counts, to_json if as_json else stats_row, header(STATS_COLUMNS, "NOTE"))


@click.command(cls=Command)
@click.argument("job_id", metavar="JOB")
@click.option(
    "--all-users", is_flag=True, help="Whoever owns the job, without --user; for operators."
)
@as_json_option
@pass_connection
def explain(connection: Connection, /, *, job_id: str, all_users: bool, as_json: bool) -> None:
    """Say why a job waits.

    It prints a line for everything that keeps the job from being started now: no worker asks for
    its type, the type or the job's concurrency key is paused, the limit of the key is reached, it
    is scheduled for later, or other jobs go first.
    """
    with connection.open(all_users=all_users) as client:
        explanation = client.explain_job(job_id, all_users=all_users)
    for line in [to_json(explanation)] if as_json else explanation_lines(explanation):
        write(line)


# Not --key, which is a file of the connection.
_key_option = click.option(
    "--concurrency-key",
    metavar="KEY",
    help="A concurrency key instead of a type: the jobs with this key, and with each key that"
    " begins with it and a colon.",
)


@click.command(cls=Command)
@click.argument("job_type", metavar="[TYPE]", required=False)
@_key_option
@click.option("--reason", metavar="TEXT", default="", help="Why, for people.")
@as_json_option
@pass_connection
def pause(
    connection: Connection,
    /,
    *,
    job_type: str | None,
    concurrency_key: str | None,
    reason: str,
    as_json: bool,
) -> None:
    """Let no job of a type, or with a concurrency key, start.

    Jobs that run go on, and jobs can still be created. `jobledger resume` ends the pause. What is
    paused already stays so, with its first time and reason.

    For operators.
    """
    target = _target(job_type, concurrency_key)
    with connection.open(all_users=True) as client:
        if concurrency_key:
            found = client.admin.pause_concurrency_key(concurrency_key, reason).pause
        else:
            found = client.admin.pause_job_type(target["job_type"], reason)
    _show_pause(target, found, as_json=as_json)


@click.command(cls=Command)
@click.argument("job_type", metavar="[TYPE]", required=False)
@_key_option
@as_json_option
@pass_connection
def resume(
    connection: Connection, /, *, job_type: str | None, concurrency_key: str | None, as_json: bool
) -> None:
    """End the pause of a type, or of a concurrency key.

    It does no harm if there is no pause.

    For operators.
    """
    target = _target(job_type, concurrency_key)
    with connection.open(all_users=True) as client:
        if concurrency_key:
            client.admin.resume_concurrency_key(concurrency_key)
        else:
            client.admin.resume_job_type(target["job_type"])
    _show_pause(target, None, as_json=as_json)


@click.group(cls=Listing)
@as_json_option
@click.pass_context
def limits(context: click.Context, *, as_json: bool) -> None:
    """List or set how many jobs with a concurrency key run at once.

    Alone it lists the limits and the pauses of keys. A job has the concurrency key that it was
    created with. HELD is how many jobs with the key, or with a key that begins with it and a
    colon, workers run now; BLOCKED is how many wait for the limit or for the end of a pause.

    For operators.
    """
    if context.invoked_subcommand is None:
        _list_limits(as_json=as_json)


@pass_connection
def _list_limits(connection: Connection, /, *, as_json: bool) -> None:
    with connection.open(all_users=True) as client:
        found = client.admin.list_concurrency_limits(page_size=1000)
        table(found, to_json if as_json else limit_row, header(LIMIT_COLUMNS, "NOTE"))


@limits.command(name="set")
@click.argument("name", metavar="KEY")
@click.argument("max_running", metavar="N", type=click.IntRange(0, 1_000_000))
@as_json_option
@pass_connection
def set_limit(connection: Connection, /, *, name: str, max_running: int, as_json: bool) -> None:
    """Let at most N jobs with this key run at once.

    That holds over all workers and servers. A limit of `stripe` is also one for each key that
    begins with `stripe:`, as `stripe:customer-7`, each by itself, unless that key has a limit of
    its own. If more run now they go on, and no further one starts until fewer do.
    """
    with connection.open(all_users=True) as client:
        _show_limit(client.admin.set_concurrency_limit(name, max_running), as_json=as_json)


@limits.command(name="remove")
@click.argument("name", metavar="KEY")
@as_json_option
@pass_connection
def remove_limit(connection: Connection, /, *, name: str, as_json: bool) -> None:
    """Remove the limit of a key.

    It does no harm if there is none. A pause of the key stays.
    """
    with connection.open(all_users=True) as client:
        _show_limit(client.admin.remove_concurrency_limit(name), as_json=as_json)


def _show_limit(limit: ConcurrencyLimit, *, as_json: bool) -> None:
    if limit.max_running is None:
        words = f"key {limit.name} has no limit"
    else:
        held = f"at most {limit.max_running} held, {limit.running} now"
        words = f"limit {limit.name}: {held}, {limit.blocked} blocked"
    write(to_json(limit) if as_json else clean(words))


def _target(job_type: str | None, concurrency_key: str | None) -> dict[str, str]:
    """Return what to pause or resume. Raises click.UsageError unless it is one thing."""
    if bool(job_type) == bool(concurrency_key):
        raise click.UsageError("give TYPE or --concurrency-key, one of them")
    return {"job_type": job_type} if job_type else {"concurrency_key": concurrency_key or ""}


def _show_pause(target: dict[str, str], pause: Pause | None, *, as_json: bool) -> None:
    if as_json:
        write(json.dumps({**target, "pause": None if pause is None else plain(pause)}))
        return
    ((kind, name),) = target.items()
    what = f"type {name}" if kind == "job_type" else f"key {name}"
    write(clean(f"{what} is {'not paused' if pause is None else paused(pause)}"))
