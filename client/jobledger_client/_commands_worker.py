"""The command that does jobs: `jobledger worker`."""

import asyncio
import logging
import shlex
import shutil
import sys
from datetime import timedelta

import click

from jobledger_client._durations import time_span
from jobledger_client._exec import Program
from jobledger_client._options import Connection
from jobledger_client.worker import Worker


@click.command()
@click.argument("job_types", metavar="TYPE...", nargs=-1, required=True)
@click.option(
    "--exec",
    "command",
    required=True,
    metavar="COMMAND",
    help="The program to run for each job. Split as a shell would, but run without one.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many jobs at once.",
)
@click.option(
    "--lease",
    type=time_span,
    metavar="TIME",
    default="60s",
    show_default=True,
    help="After how long without a sign of life a job is another worker's.",
)
@click.option(
    "--grace",
    type=time_span,
    metavar="TIME",
    default="10s",
    show_default=True,
    help="How long running jobs have to end after SIGTERM or SIGINT.",
)
@click.pass_obj
def worker(
    connection: Connection,
    *,
    job_types: tuple[str, ...],
    command: str,
    concurrency: int,
    lease: timedelta,
    grace: timedelta,
) -> None:
    """Do jobs of these types: run a program for each, in any language.

    The program gets the job as a JSON object on stdin. Each line that it writes to
    stdout is {"progress": 40, "message": "..."}, {"asset": {...}} or, at last, the
    result. Exit code 0 is COMPLETED, 3 PARTIAL, any other FAILED, with the last
    lines of stderr as the message. Details: docs/workers.md.

    On SIGTERM no more jobs are taken; those that do not end in time are given back.
    """
    program = Program(_program(command))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)

    async def work() -> None:
        async with connection.open_ownerless() as client:
            worker = Worker(
                client, concurrency=concurrency, lease=lease, grace=grace.total_seconds()
            )
            for job_type in dict.fromkeys(job_types):
                worker.handler(job_type)(program.handle)
            await worker.run()

    asyncio.run(work())


def _program(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise click.UsageError(f"--exec: {error}") from None
    if not words:
        raise click.UsageError("--exec: no command")
    if shutil.which(words[0]) is None:
        raise click.UsageError(f"--exec: there is no program {words[0]!r}")
    return words
