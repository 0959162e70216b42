"""The commands that watch: `jobledger watch` and `jobledger top`."""

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import click

from jobledger import JobledgerError
from jobledger.cli.connection import Connection
from jobledger.cli.exit_codes import drawable, flush, print_note, stoppable, write
from jobledger.cli.job_watches import Lines, View, watch_all
from jobledger.cli.options import (
    Command,
    all_users_option,
    as_json_option,
    filter_options,
    pass_connection,
)
from jobledger.cli.outages import Outages
from jobledger.cli.render import to_json


@click.command(cls=Command)
@click.argument("job_ids", metavar="[JOB...]", nargs=-1)
@click.option("--all", "all_jobs", is_flag=True, help="All jobs of the user.")
@all_users_option
@filter_options
@click.option(
    "--resume",
    "resume_token",
    metavar="TOKEN",
    default="",
    help="Continue after the line that had this resume_token.",
)
@as_json_option
@pass_connection
def watch(
    connection: Connection,
    /,
    *,
    job_ids: tuple[str, ...],
    all_jobs: bool,
    all_users: bool,
    resume_token: str,
    as_json: bool,
    **filters: Any,
) -> int:
    """Show the changes of jobs as they happen.

    Given JOB..., it shows a progress bar for each on a terminal that can draw, else a line of JSON
    for each change. It exits when all of them are COMPLETED, PARTIAL or FAILED.

    With --all or --all-users (and --json, on a terminal) it prints lines of JSON until you stop
    it: first each job that is not yet COMPLETED, PARTIAL or FAILED, then a line with
    "synced": true, then each change.
    A program that keeps the resume_token of the last line that it has processed can continue
    there with --resume. It misses nothing; changes that arrived together with that line may be
    printed again. If the service no longer knows the token, stderr says so and the jobs are
    listed again.

    It continues through restarts of the service, and says so on stderr.
    """
    if all_jobs or all_users:
        if job_ids:
            raise click.UsageError("give JOB... or --all, not both")
        if drawable() and not as_json:
            raise click.UsageError("on a terminal use `jobledger top`, or give --json")
        options = {"all_users": all_users, "resume_token": resume_token, **filters}
        asyncio.run(_print_changes(connection, options))
        return 0
    if not job_ids:
        raise click.UsageError("which jobs? Give JOB..., --all or --all-users")
    if resume_token or any(filters.values()):
        raise click.UsageError("--type, --label and --resume need --all or --all-users")
    draw = drawable() and not as_json

    async def run() -> int:
        ids = list(dict.fromkeys(job_ids))
        view: AbstractContextManager[View] = nullcontext(Lines())
        if draw:
            # Imports rich, which is slow to load.
            from jobledger.cli.bars import Bars  # noqa: PLC0415

            view = Bars(ids)
        with stoppable():
            async with connection.open_async() as client:
                return await watch_all(client, ids, view, connection.server)

    return asyncio.run(run())


@click.command(cls=Command)
@all_users_option
@filter_options
@click.option("--once", is_flag=True, help="Print the table once and exit.")
@pass_connection
def top(connection: Connection, /, *, all_users: bool, once: bool, **filters: Any) -> None:
    """Show a live table of all jobs.

    It shows the jobs that run or wait, until you stop it. Those that were started come first, the
    longest-running at the top, then the queued ones, by priority and age, then those that are
    SCHEDULED for later. A job that was started is WAITING FOR RETRY while no worker holds it, with
    the time of its next attempt and why the one before ended. One that finishes stays for five
    seconds.

    For an operator, with --all-users and without --label, the first line has the exact counts of
    `jobledger stats`.
    """
    if not drawable() and not once:
        raise click.UsageError(
            "the output is not a terminal that can draw: use --once, or"
            " `jobledger watch --all --json`"
        )
    # Imports rich, which is slow to load.
    from jobledger.cli.top import draw_live, draw_once  # noqa: PLC0415

    options = {"all_users": all_users, **filters}
    title = f"{'all users' if all_users else connection.user} at {connection.server}"

    async def run() -> None:
        async with connection.open_async(all_users=all_users) as client:
            if once:
                await draw_once(client, {**options, "reconnect_timeout": connection.timeout}, title)
            else:
                await draw_live(client, options, title)

    asyncio.run(run())


async def _print_changes(connection: Connection, options: dict[str, Any]) -> None:
    def on_gap(error: JobledgerError) -> None:
        print_note(f"cannot resume, listing the jobs again: {error}")

    outages = Outages(connection.server, print_note)
    with stoppable():
        async with (
            connection.open_async(all_users=options["all_users"]) as client,
            client.watch_jobs(
                on_gap=on_gap,
                on_disconnect=outages.disconnected,
                on_reconnect=outages.reconnected,
                **options,
            ) as events,
        ):
            async for event in events:
                outages.received()
                write(to_json(event))
                flush()
