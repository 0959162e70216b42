"""The commands that work on jobs: `jobledger worker`."""

import asyncio
import logging
import shutil
import sys
from datetime import timedelta

import click

from jobledger import JobledgerError
from jobledger.cli.connection import Connection
from jobledger.cli.options import Command, Group, pass_connection
from jobledger.cli.times import duration
from jobledger.cli.worker_run import run


@click.command(cls=Group)
def worker() -> None:
    """Run jobs."""


worker.add_command(run)


class _ExecCommand(Command):
    """Takes everything after `--` as the program, options too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, program = args, []
        if "--" in args:
            at = args.index("--")
            own, program = args[:at], args[at + 1 :]
        ctx.params["program"] = program
        return super().parse_args(ctx, own)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "-- PROGRAM [ARGUMENT...]"]


@worker.command(name="exec", cls=_ExecCommand)
@click.argument("job_types", metavar="TYPE...", nargs=-1, required=True)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    show_default=True,
    help="How many jobs to run at once.",
)
@click.option(
    "--lease",
    type=duration,
    default="60s",
    show_default=True,
    help="If the worker dies, its jobs pass to another one after this time.",
)
@click.option(
    "--grace",
    type=duration,
    default="10s",
    show_default=True,
    help="How long running jobs may take to finish after SIGTERM or SIGINT.",
)
@click.option(
    "--health",
    metavar="HOST:PORT",
    help="Serve /healthz there without authentication, and /metrics if prometheus_client is"
    " installed.",
)
@click.option(
    "--output/--no-output",
    default=True,
    show_default=True,
    help="Send what the program writes for people, to stdout and stderr, as the job's output: see"
    " `jobledger logs`. Its lines of JSON for the worker are left out.",
)
@pass_connection
def exec_(
    connection: Connection,
    *,
    job_types: tuple[str, ...],
    program: list[str],
    concurrency: int,
    lease: timedelta,
    grace: timedelta,
    health: str | None,
    output: bool,
) -> None:
    """Run a program, in any language, for each job of these types.

    \b
        jobledger worker exec render -- python render.py

    The program reads the job from stdin, as one JSON object. These variables name it, too:
    JOBLEDGER_JOB_ID, JOBLEDGER_JOB_TYPE, JOBLEDGER_ATTEMPT, JOBLEDGER_MAX_ATTEMPTS,
    JOBLEDGER_USER_ID, JOBLEDGER_WORKER_ID. Each line that it writes to stdout
    is a JSON object: {"progress": 40, "message": "..."}, {"checkpoint": {...}}, {"asset": {...}}
    or, at last, the result. Exit code 0 means COMPLETED, 3 PARTIAL, 75 or a signal that the job is
    tried again if it has attempts left, any other FAILED; the last lines of stderr are the error's
    message.
    docs/guides/worker-programs.md has the details.

    What the program writes to stderr, and any other line of stdout, is the job's output. It is
    passed on to stderr, too; with --concurrency above 1 each line starts with the job's id.

    On SIGTERM or SIGINT the worker claims no more jobs. It releases those that do not finish in
    time, and another worker starts them again.
    """  # noqa: D301  # click's mark of a paragraph that stays as it is
    if not program:
        raise click.UsageError(
            "give the program after --, for example: jobledger worker exec render -- python work.py"
        )
    if shutil.which(program[0]) is None:
        raise click.UsageError(f"there is no program {program[0]!r}")
    # The worker library takes a third of a start, which no other command needs.
    from jobledger.cli.program import Program  # noqa: PLC0415
    from jobledger.core.status_server import parse_address  # noqa: PLC0415
    from jobledger.worker.worker import Worker  # noqa: PLC0415

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)

    if health is not None:
        try:
            parse_address(health)
        except ValueError as error:
            raise click.UsageError(f"--health: {error}") from None

    async def work() -> None:
        async with connection.open_async(all_users=True) as client:
            worker = Worker(
                client, concurrency=concurrency, lease=lease, grace=grace, health=health
            )
            run = Program(
                program,
                worker_id=client.worker_id,
                prefixed=concurrency > 1,
                sends_output=output,
            )
            for job_type in dict.fromkeys(job_types):
                worker.handler(job_type)(run.handle)
            try:
                await worker.run(signals=True)
            except OSError as error:
                if health is None or isinstance(error, JobledgerError):
                    raise
                reason = error.strerror or str(error)
                raise click.ClickException(
                    f"--health: cannot serve at {health}: {reason}"
                ) from None

    asyncio.run(work())
