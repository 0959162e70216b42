"""The options that select jobs, of the commands that list jobs and of those that change many."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import click

from jobledger import JobFilters, JobPhase, JobStatus
from jobledger.cli.options import filter_options, group_option, not_empty_if_given
from jobledger.cli.times import moment

_Function = TypeVar("_Function", bound=Callable[..., Any])

ACTIVE = (JobStatus.QUEUED, JobStatus.PROCESSING)
TERMINAL = (JobStatus.COMPLETED, JobStatus.PARTIAL, JobStatus.FAILED)


def job_filters(
    statuses: Iterable[JobStatus], *, default: str = "all"
) -> Callable[[_Function], _Function]:
    """Add the options that select jobs; their values have the names of JobFilters.

    A command for active jobs alone has no option for how jobs ended, and one for ended jobs none
    for what active ones do.

    Args:
        statuses: those that --status can name.
        default: what --status is without one, for its help.
    """
    possible = tuple(statuses)
    options = [
        click.option(
            "--status",
            "statuses",
            multiple=True,
            type=click.Choice([status.value for status in possible], case_sensitive=False),
            help=f"Only jobs with this status; repeat it for several.  [default: {default}]",
        ),
        filter_options,
    ]
    if any(status in TERMINAL for status in possible):
        options += _ENDED
    if any(status in ACTIVE for status in possible):
        options += _ACTIVE
    return lambda function: functools.reduce(
        lambda wrapped, option: option(wrapped), reversed([*options, *_ALL]), function
    )


def _named(option: str, metavar: str, text: str, *names: str) -> Callable[[_Function], _Function]:
    return click.option(
        option, *names, metavar=metavar, default="", callback=not_empty_if_given, help=text
    )


_ENDED = [
    click.option(
        "--reason",
        "error_reasons",
        multiple=True,
        metavar="REASON",
        help="Only jobs whose error has this reason, for example LEASE_EXPIRED; repeat it"
        " for several.",
    ),
    click.option(
        "--cancelled/--not-cancelled",
        "cancelled",
        default=None,
        help="Only jobs that were cancelled, or only others.",
    ),
]

_ACTIVE = [
    click.option(
        "--held/--not-held",
        "held",
        default=None,
        help="Only jobs that a worker holds, or only those that wait for one.",
    ),
    click.option(
        "--phase",
        "phases",
        multiple=True,
        type=click.Choice([phase.value for phase in JobPhase], case_sensitive=False),
        help="Only jobs in this phase, none that have ended; repeat it for several.",
    ),
]

_ALL = [
    click.option(
        "--created-after",
        type=moment,
        metavar="WHEN",
        help="Only jobs created later: 2026-11-01, 2026-11-01T15:30Z, or 2h for 2 hours ago.",
    ),
    click.option(
        "--created-before", type=moment, metavar="WHEN", help="Only jobs created earlier."
    ),
    _named(
        "--origin",
        "JOB",
        "Only the rerun of this job; see `jobledger rerun --help`.",
        "origin_job_id",
    ),
    _named("--unique-key", "KEY", "Only the user's jobs with this unique key."),
    _named("--request-id", "TEXT", "Only the user's job that was created with this id."),
    _named("--concurrency-key", "KEY", "Only jobs with this concurrency key."),
    group_option("Only the jobs that belong to this group."),
    _named("--worker", "ID", "Only jobs that this worker holds, or held last.", "worker_id"),
]


def selected(options: dict[str, Any]) -> JobFilters:
    """Return the filters that were given.

    Without --status, --not-held leaves out the jobs that have ended: no worker holds these either.
    """
    filters = {name: value for name, value in options.items() if value or value is False}
    if filters.get("held") is False:
        filters.setdefault("statuses", ACTIVE)
    return cast("JobFilters", filters)
