"""How the command line shows jobs: JSON for programs, tables for people."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

from jobledger import (
    Asset,
    Attempt,
    DisplayState,
    Group,
    Job,
    JobError,
    JobOptions,
    JobStatus,
    RetryPolicy,
    Transition,
)
from jobledger.cli.exit_codes import write
from jobledger.core.plain import plain, rfc3339

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

NARROW: Final = 60
"""A terminal with fewer columns cannot show both a whole id and the status."""

_ID: Final = 36
_STATUS: Final = 10
STATE: Final = len(DisplayState.WAITING_FOR_RETRY)

# Fixed widths, so that rows can be shown while more are still being fetched;
# text of any length comes last.
JOB_COLUMNS: Final = (
    ("ID", _ID),
    ("STATUS", STATE),
    ("PROGRESS", 8),
    ("CREATED", 20),
    ("TYPE", 16),
)
OWNED_JOB_COLUMNS: Final = (*JOB_COLUMNS, ("USER", 20))
TRANSITION_COLUMNS: Final = (
    ("TIME", 27),
    ("FROM", _STATUS),
    ("TO", _STATUS),
    ("VERSION", 7),
    ("ATTEMPT", 7),
    ("ACTOR", 20),
)
ATTEMPT_COLUMNS: Final = (
    ("ATTEMPT", 7),
    ("STARTED", 20),
    ("ENDED", 20),
    ("OUTCOME", 13),
    ("PROGRESS", 8),
    ("WORKER", 20),
)
ASSET_COLUMNS: Final = (("ID", _ID), ("NAME", 24), ("SIZE", 12), ("TYPE", 24))


_Row = TypeVar("_Row")


def to_json(value: "DataclassInstance") -> str:
    """Return one line of JSON; see `plain`."""
    return json.dumps(plain(value))


def row(columns: Sequence[tuple[str, int]], cells: Sequence[str], last: str) -> str:
    padded = [clean(cell).ljust(width) for cell, (_, width) in zip(cells, columns, strict=True)]
    return "  ".join([*padded, clean(last)]).rstrip()


def header(columns: Sequence[tuple[str, int]], last: str) -> str:
    return row(columns, [name for name, _ in columns], last)


def table(items: Iterable[_Row], render: Callable[[_Row], str], columns: str) -> None:
    """Print a line for each item, and before them the header, unless they are JSON."""
    rows = iter(items)
    # A call that fails prints nothing, not even the header.
    first = list(itertools.islice(rows, 1))
    if render is not to_json:
        write(columns)
    for item in itertools.chain(first, rows):
        write(render(item))


def job_row(job: Job) -> str:
    now = datetime.now(UTC)
    return row(JOB_COLUMNS, _job_cells(job, now), _reason(job, now))


def owned_job_row(job: Job) -> str:
    now = datetime.now(UTC)
    return row(OWNED_JOB_COLUMNS, [*_job_cells(job, now), job.user_id], _reason(job, now))


def _job_cells(job: Job, now: datetime) -> list[str]:
    created = time_text(job.create_time)
    return [job.id, job.display_state_at(now), f"{job.progress} %", created, job.job_type]


def transition_row(step: Transition) -> str:
    cells = (
        time_text(step.time, "microseconds"),
        step.from_status,
        step.to_status,
        str(step.version),
        str(step.attempt),
        step.actor,
    )
    return row(TRANSITION_COLUMNS, cells, step.reason)


def attempt_row(attempt: Attempt) -> str:
    cells = (
        str(attempt.number),
        time_text(attempt.start_time),
        time_text(attempt.end_time),
        attempt.outcome or "RUNNING",
        f"{attempt.progress} %",
        attempt.worker_id,
    )
    return row(ATTEMPT_COLUMNS, cells, _error(attempt.error))


def asset_row(asset: Asset) -> str:
    cells = (asset.id, asset.name, str(asset.file_size), asset.asset_type)
    return row(ASSET_COLUMNS, cells, "  ".join(filter(None, (asset.url, asset.storage_path))))


_WITH_LINES = frozenset(
    {
        *("labels", "request_id", "retry_policy", "schedule_time", "priority"),
        *("fairness_key", "concurrency_key", "unique_key", "stall_timeout"),
    }
)
"""The options of a creation that have lines of their own in the card of a job."""


def job_card(job: Job) -> list[str]:
    """Lay out a whole job as `name  value` lines; what is unset has none."""
    now = datetime.now(UTC)
    until = waits_until(job, now)
    facts = [
        ("id", job.id),
        ("type", job.job_type),
        ("status", job.display_state_at(now) + (f"  until {time_text(until)}" if until else "")),
        ("progress", f"{job.progress} %  {job.progress_message}"),
        ("jobs", group_counts(job.group) if job.group else ""),
        ("owner", job.user_id),
        ("labels", "  ".join(f"{key}={value}" for key, value in sorted(job.labels.items()))),
        ("origin", job.origin_job_id),
        ("priority", str(job.priority)),
        ("fairness", "" if job.fairness_key == job.user_id else job.fairness_key),
        ("concurrency", job.concurrency_key),
        ("unique", job.unique_key),
        ("request", job.request_id),
        ("attempt", str(job.attempt)),
        ("retries", _retries(job.retry_policy)),
        ("last error", _error(job.last_error)),
        ("worker", job.worker_id),
        ("created", time_text(job.create_time)),
        ("scheduled", time_text(job.schedule_time)),
        ("started", time_text(job.start_time)),
        ("updated", time_text(job.update_time)),
        ("completed", time_text(job.complete_time)),
        ("queue limit", _until(job.queue_expire_time)),
        ("run limit", _until(job.run_expire_time)),
        (
            "stall limit",
            f"{plain(job.stall_timeout)} without progress" if job.stall_timeout else "",
        ),
        ("kept for", f"{plain(job.retention)} after its end" if job.retention else ""),
        *((name.replace("_", " "), _for_all(value)) for name, value in _further(job)),
        ("version", str(job.version)),
        ("parameters", _for_people(job.parameters)),
        ("checkpoint", _for_people(job.checkpoint)),
        ("result", _for_people(job.result)),
        ("error", _error(job.error)),
        ("details", _for_people(job.error.details) if job.error else ""),
    ]
    return [f"{name:<11}  {clean(value).strip()}" for name, value in facts if value]


def _further(job: Job) -> Iterator[tuple[str, object]]:
    """Yield the other options that the job was created with."""
    for name in JobOptions.__annotations__:
        if name not in _WITH_LINES and getattr(job, name, None):
            yield name, getattr(job, name)


def _for_all(value: object) -> str:
    return "yes" if value is True else str(plain(value))


def group_counts(group: Group) -> str:
    """Say what the jobs of a group do: `3 of 8 ended, 1 failed, 5 queued; sealed`."""
    ended = group.completed + group.partial + group.failed
    names = ("failed", "partial", "processing", "queued")
    counts = [f"{number} {name}" for name in names if (number := getattr(group, name))]
    kinds = [f"{ended} of {group.total} ended", *counts]
    return ", ".join(kinds) + ("; sealed" if group.sealed else "; not sealed")


def waits_until(job: Job, now: datetime) -> datetime | None:
    """Return when a worker can get a job; None if one can now, or has it, or the job has ended."""
    time = job.schedule_time
    return time if _is_pending(job) and time is not None and time > now else None


def _is_pending(job: Job) -> bool:
    """Whether no worker has the job, and one may get it."""
    return job.status is JobStatus.QUEUED or job.awaits_retry


def job_message(job: Job, now: datetime) -> str:
    """Return what people want to know of a job.

    That is its error; or until when it waits, and why its last attempt ended; or its last progress
    message. Of a group it is what its jobs do, and its error.
    """
    if job.group is not None:
        return "  ".join(filter(None, (group_counts(job.group), _error(job.error))))
    if job.error:
        return _error(job.error)
    return _waits(job, now, _error(job.last_error)) or job.progress_message


def _reason(job: Job, now: datetime) -> str:
    """Return `job_message` without messages: in a list only reasons fit."""
    if job.error:
        return job.error.reason
    return _waits(job, now, job.last_error.reason if job.last_error else "")


def _waits(job: Job, now: datetime, last_error: str) -> str:
    """Return until when a job waits, and why its last attempt ended; nothing if it does not."""
    if not _is_pending(job):
        return ""
    until = waits_until(job, now)
    return "  ".join(filter(None, (f"until {time_text(until)}" if until else "", last_error)))


def _error(error: JobError | None) -> str:
    return ": ".join(filter(None, (error.reason, error.message))) if error else ""


def _until(limit: datetime | None) -> str:
    return f"until {time_text(limit)}" if limit else ""


def _retries(policy: RetryPolicy) -> str:
    if policy.max_attempts == 1:
        return ""
    first, last = plain(policy.initial_backoff), plain(policy.max_backoff)
    return f"{policy.max_attempts} attempts in all, after pauses of {first} to {last}"


def fitting_id(job: Job, width: int) -> str:
    """Return a job's id, or its random part where a terminal is too narrow for all of it."""
    return job.id if width >= NARROW else f"\N{HORIZONTAL ELLIPSIS}{job.id[-12:]}"


def clean(text: str) -> str:
    """Make text from elsewhere one line that is safe to show.

    It could carry a terminal's control sequences. Line breaks become spaces: error messages have
    them.
    """
    return "".join(
        letter if letter.isprintable() else " " if letter.isspace() else "\N{REPLACEMENT CHARACTER}"
        for letter in text
    )


def jobs(count: int) -> str:
    """Say how many jobs: `1 job`, `2 jobs`."""
    return "1 job" if count == 1 else f"{count} jobs"


def _for_people(value: Mapping[str, object] | None) -> str:
    return json.dumps(plain(value), ensure_ascii=False) if value else ""


def time_text(moment: datetime | None, precision: str = "seconds") -> str:
    """Return a time in UTC as RFC 3339; nothing for none."""
    return "" if moment is None else rfc3339(moment, precision)
