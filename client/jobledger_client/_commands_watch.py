"""The commands that follow: `jobledger watch` and `jobledger top`."""

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final

import click

from jobledger_client import AsyncClient, JobledgerError
from jobledger_client._bars import Bars, lines, watch_all
from jobledger_client._ending import flush, stoppable, write
from jobledger_client._options import (
    Command,
    Connection,
    as_json_option,
    filter_options,
    read_labels,
)
from jobledger_client._render import to_json

# As long as a call goes on that finds no server; a wrong address is told by then.
_CONNECT_TIMEOUT: Final = 4.0


def _all_users_option(words: str) -> Callable[[Command], Command]:
    return click.option("--all-users", is_flag=True, help=words)


@click.command()
@click.argument("job_ids", metavar="[JOB...]", nargs=-1)
@click.option("--all", "all_jobs", is_flag=True, help="All jobs of --user, without an end.")
@_all_users_option("Everybody's jobs, without an end.")
@filter_options
@click.option(
    "--resume",
    "resume_token",
    metavar="TOKEN",
    default="",
    help="Go on after the line that has this resume_token.",
)
@as_json_option
@click.pass_obj
def watch(
    connection: Connection,
    *,
    job_ids: tuple[str, ...],
    all_jobs: bool,
    all_users: bool,
    job_types: tuple[str, ...],
    labels: tuple[str, ...],
    resume_token: str,
    as_json: bool,
) -> int:
    """Follow jobs, through restarts of the service.

    Named jobs are followed to their ends: as bars on a terminal, else as a JSON line
    for each change.

    With --all or --all-users, the jobs that have not ended are told first, each on
    a line of JSON, then comes a line with "synced": true, and then each change, until
    you stop it. A program that reads this can keep the resume_token of the last
    line that it has dealt with, and go on with --resume. Where that is not possible
    the jobs are listed again; stderr says so.
    """
    if all_jobs or all_users:
        if job_ids:
            raise click.UsageError("give JOB... or --all, not both")
        if sys.stdout.isatty() and not as_json:
            raise click.UsageError("for a terminal there is `jobledger top`; else give --json")
        options = _filters(connection, all_users=all_users, job_types=job_types, labels=labels)
        asyncio.run(_print_changes(connection, resume_token=resume_token, **options))
        return 0
    if not job_ids:
        raise click.UsageError("which jobs? Give JOB..., --all or --all-users")
    if job_types or labels or resume_token:
        raise click.UsageError("--type, --label and --resume go with --all or --all-users")

    async def follow() -> int:
        async with connection.open_async() as client:
            return await watch_all(client, job_ids, Bars() if draw else lines())

    draw = sys.stdout.isatty() and not as_json
    return asyncio.run(follow())


@click.command()
@_all_users_option("Everybody's jobs.")
@filter_options
@click.option("--once", is_flag=True, help="Print the table once and exit.")
@click.pass_obj
def top(
    connection: Connection,
    *,
    all_users: bool,
    job_types: tuple[str, ...],
    labels: tuple[str, ...],
    once: bool,
) -> None:
    """Show all jobs that have not ended, live, until you stop it.

    Running jobs come first, the longest-running at the top, then those that wait, in
    the order in which they will be done. What ends stays for five seconds.
    """
    drawable = sys.stdout.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}
    if not drawable and not once:
        raise click.UsageError(
            "the output is not a terminal: use `jobledger watch --all --json`, or --once"
        )
    # It draws, and rich takes its time to load.
    from jobledger_client._top import draw_live, draw_once  # noqa: PLC0415

    options = _filters(connection, all_users=all_users, job_types=job_types, labels=labels)
    title = f"{'all users' if all_users else connection.user} at {connection.server}"

    async def run() -> None:
        async with _open(connection, all_users=all_users) as client:
            draw = draw_once if once else draw_live
            await draw(client, options, title)

    asyncio.run(run())


async def _print_changes(connection: Connection, **options: Any) -> None:
    def on_gap(error: JobledgerError) -> None:
        click.echo(f"note: cannot go on after that token, listing again: {error}", err=True)

    async with _open(connection, all_users=options["all_users"]) as client:
        with stoppable():
            async with aclosing(client.watch_jobs(on_gap=on_gap, **options)) as news:
                async for message in news:
                    write(to_json(message))
                    flush()


def _open(connection: Connection, *, all_users: bool) -> AsyncClient:
    return connection.open_ownerless() if all_users else connection.open_async()


def _filters(
    connection: Connection,
    *,
    all_users: bool,
    job_types: tuple[str, ...],
    labels: tuple[str, ...],
) -> dict[str, Any]:
    return {
        "all_users": all_users,
        "job_types": job_types,
        "labels": read_labels(labels),
        "connect_timeout": min(connection.timeout, _CONNECT_TIMEOUT),
    }
