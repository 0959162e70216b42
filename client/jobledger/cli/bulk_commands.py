"""The commands that change jobs, given their ids or filters: rerun, cancel and delete."""

import json
import math
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import click

from jobledger import BulkResult, Job, JobFilters, JobledgerError
from jobledger.cli.connection import Connection
from jobledger.cli.exit_codes import (
    INTERRUPTED,
    UNAVAILABLE,
    drawable,
    flush,
    print_error,
    verdict,
    write,
)
from jobledger.cli.filters import ACTIVE, TERMINAL, job_filters, selected
from jobledger.cli.options import Command, all_users_option, as_json_option, pass_connection
from jobledger.cli.render import JOB_COLUMNS, header, job_row, jobs, to_json
from jobledger.cli.times import rough

_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Words(NamedTuple):
    """What a command calls that which it does."""

    verb: str
    done: str
    warning: str = ""


class _Call(Protocol):
    """A call that changes the jobs that match the filters of the command."""

    def __call__(
        self,
        *,
        validate_only: bool = False,
        on_progress: Callable[[BulkResult], object] | None = None,
    ) -> BulkResult: ...


def _many_options(function: _Function) -> _Function:
    """Add JOB..., --all, --all-users, --yes and --json."""
    function = click.argument("job_ids", metavar="[JOB...]", nargs=-1)(function)
    function = as_json_option(function)
    function = click.option(
        "--yes", is_flag=True, help="Do not ask before many jobs are changed; for scripts."
    )(function)
    function = all_users_option(function)
    return click.option(
        "--all",
        "all_jobs",
        is_flag=True,
        help="All jobs that the command can change, without a filter.",
    )(function)


@click.command(cls=Command)
@job_filters(TERMINAL, default="failed")
@click.option(
    "--pace",
    type=click.FloatRange(0.001, 1000),
    metavar="N",
    help="How many of the new jobs may start in a second, so that they do not overload what they"
    " use.  [default: all at once]",
)
@_many_options
@pass_connection
def rerun(
    connection: Connection,
    /,
    *,
    job_ids: tuple[str, ...],
    pace: float | None,
    all_jobs: bool,
    all_users: bool,
    yes: bool,
    as_json: bool,
    **filters: Any,
) -> int:
    """Run jobs again that have ended, as new jobs.

    A new job has the type, parameters, labels and keys of the old one, which stays as it is. Each
    job is rerun once: to run it again, rerun the new job. One whose unique key another job has is
    not rerun.

    Given JOB..., it prints the id of the new job for each of them, also if it was rerun before.

    Given filters, as in `jobledger rerun --status failed --type render --reason DISK_FULL`, it
    reruns all jobs that match and were not rerun yet. First it says how many there are, and
    asks. If it is stopped in the middle, the same command continues. Cancelled jobs are left
    out unless --cancelled is given.
    """
    chosen = _chosen(job_ids, selected(filters), all_jobs=all_jobs, all_users=all_users)
    if job_ids and pace:
        raise click.UsageError("--pace needs filters: jobs that are named start at once")
    with connection.open(all_users=all_users) as client:
        if not job_ids:
            call = partial(
                client.rerun_jobs,
                jobs_per_second=pace or 0.0,
                all_jobs=all_jobs,
                all_users=all_users,
                **chosen,
            )
            return _change(call, _Words("rerun", "rerun"), yes=yes, as_json=as_json, pace=pace)

        def rerun_one(job_id: str) -> str:
            job = client.rerun_job(job_id)
            return to_json(job) if as_json else job.id

        return _for_each(job_ids, rerun_one)


@click.command(cls=Command)
@click.option("--reason", metavar="TEXT", default="", help="Why, for people.")
@job_filters(ACTIVE)
@_many_options
@pass_connection
def cancel(
    connection: Connection,
    /,
    *,
    job_ids: tuple[str, ...],
    reason: str,
    all_jobs: bool,
    all_users: bool,
    yes: bool,
    as_json: bool,
    **filters: Any,
) -> int:
    """Cancel jobs.

    A job that waits for a worker is FAILED at once. The worker of a running job is asked to stop.

    Given JOB..., it prints a line for each. If one of them cannot be cancelled the others are; the
    exit code is the highest.

    Given filters, as in `jobledger cancel --type render --label team=film`, it cancels all jobs
    that match and have not ended. First it says how many there are, and asks. If it is stopped in
    the middle, the same command continues.
    """
    chosen = _chosen(job_ids, selected(filters), all_jobs=all_jobs, all_users=all_users)
    with connection.open(all_users=all_users) as client:
        if not job_ids:
            call = partial(
                client.cancel_jobs, reason, all_jobs=all_jobs, all_users=all_users, **chosen
            )
            return _change(call, _Words("cancel", "cancelled"), yes=yes, as_json=as_json)

        def cancel(job_id: str) -> str:
            job = client.cancel_job(job_id, reason)
            return to_json(job) if as_json else f"{_cancelled(job)} {job.id}"

        return _for_each(job_ids, cancel)


@click.command(cls=Command)
@job_filters(TERMINAL)
@_many_options
@pass_connection
def delete(
    connection: Connection,
    /,
    *,
    job_ids: tuple[str, ...],
    all_jobs: bool,
    all_users: bool,
    yes: bool,
    as_json: bool,
    **filters: Any,
) -> int:
    """Delete jobs that are COMPLETED, PARTIAL or FAILED.

    Given JOB..., it prints a line for each. If one of them cannot be deleted the others are; the
    exit code is the highest.

    Given filters, as in `jobledger delete --status completed --created-before 30d`, it deletes all
    jobs that match and have ended. First it says how many there are, and asks. If it is stopped in
    the middle, the same command continues.
    """
    chosen = _chosen(job_ids, selected(filters), all_jobs=all_jobs, all_users=all_users)
    with connection.open(all_users=all_users) as client:
        if not job_ids:
            call = partial(client.delete_jobs, all_jobs=all_jobs, all_users=all_users, **chosen)
            words = _Words("delete", "deleted", " This cannot be undone.")
            return _change(call, words, yes=yes, as_json=as_json)

        def delete(job_id: str) -> str:
            client.delete_job(job_id)
            answer = {"job_id": job_id, "deleted": True}
            return json.dumps(answer) if as_json else f"deleted {job_id}"

        return _for_each(job_ids, delete)


def _cancelled(job: Job) -> str:
    if not job.is_terminal:
        return "cancelling"
    if job.cancelled:
        return "cancelled"
    return f"already {job.status}"


def _chosen(
    job_ids: tuple[str, ...], filters: JobFilters, *, all_jobs: bool, all_users: bool
) -> JobFilters:
    """Return the filters. Raises click.UsageError unless it is clear which jobs are meant."""
    if job_ids and (filters or all_jobs or all_users):
        raise click.UsageError("give JOB... or filters, not both")
    if filters and all_jobs:
        raise click.UsageError("give filters or --all, not both")
    if not (job_ids or filters or all_jobs):
        raise click.UsageError(
            "which jobs? Give JOB..., a filter such as --type, or --all for every job"
        )
    return filters


def _change(
    call: _Call, words: _Words, *, yes: bool, as_json: bool, pace: float | None = None
) -> int:
    """Count, ask, change in steps under a bar, and say what was done; return the exit code."""
    if not (yes or (sys.stdin.isatty() and sys.stdout.isatty())):
        raise click.UsageError(
            f"give --yes to {words.verb} without a question: this is not a terminal"
        )
    draw = drawable() and not as_json
    # A script that does not ask needs no count before.
    found = call(validate_only=True) if draw or not yes else None
    if found is not None and found.matched and not yes and not _agrees(found, words, pace):
        write(f"{words.done} no job")
        return INTERRUPTED
    done = BulkResult(0, 0)
    bar: AbstractContextManager[Callable[[BulkResult], None] | None] = nullcontext()
    if found is not None and draw:
        # Imports rich, which is slow to load.
        from jobledger.cli.bars import count_bar  # noqa: PLC0415

        bar = count_bar(found.matched, words.done)
    try:
        with bar as show:

            def progress(result: BulkResult) -> None:
                nonlocal done
                done = result
                if show is not None:
                    show(result)

            call(on_progress=progress)
    except JobledgerError as error:
        if not done.changed:
            raise
        message, code = verdict(error)
        print_error(f"{message}; {words.done} {jobs(done.changed)}, the same command continues")
        return code
    counts = {"matched": done.matched, "changed": done.changed}
    write(json.dumps(counts) if as_json else _summary(done, words, pace))
    return 0


def _agrees(found: BulkResult, words: _Words, pace: float | None) -> bool:
    """Show what was found, and ask. The end of the input is a no."""
    write(header(JOB_COLUMNS, "REASON"))
    for job in found.sample:
        write(job_row(job))
    if found.matched > len(found.sample):
        write(f"and {found.matched - len(found.sample)} more")
    how = "" if pace is None else f", {pace:g} a second, in {_time_for(found.matched, pace)}"
    sys.stdout.write(f"{words.verb.capitalize()} {jobs(found.matched)}{how}?{words.warning} [y/N] ")
    flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _summary(done: BulkResult, words: _Words, pace: float | None) -> str:
    if not done.matched:
        return "no job matches"
    if done.changed < done.matched:
        return f"{words.done} {done.changed} of {jobs(done.matched)}; the others changed meanwhile"
    how = "" if pace is None else f"; the last one may start in {_time_for(done.changed, pace)}"
    return f"{words.done} {jobs(done.changed)}{how}"


def _time_for(count: int, pace: float) -> str:
    return rough(math.ceil(count / pace))


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
