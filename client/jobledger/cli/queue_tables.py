"""How the command line shows counts and limits to people."""

from collections.abc import Iterable
from typing import Final

from jobledger import ConcurrencyLimit, EndedJobs, JobStatus, JobTypeStats, PriorityStats
from jobledger.cli.render import clean, row
from jobledger.cli.times import rough
from jobledger.cli.wait_sentences import paused

STATS_COLUMNS: Final = (
    ("TYPE", 16),
    ("READY", 8),
    ("BLOCKED", 8),
    ("SCHEDULED", 9),
    ("HELD", 8),
    ("OLDEST", 6),
    ("ENDED/MIN", 9),
    ("ENDED/HOUR", 10),
    ("FAILED/HOUR", 11),
)
LIMIT_COLUMNS: Final = (("KEY", 24), ("LIMIT", 8), ("HELD", 8), ("BLOCKED", 8))


def stats_row(stats: JobTypeStats) -> str:
    cells = (
        stats.job_type,
        str(stats.ready),
        str(stats.blocked),
        str(stats.scheduled),
        str(stats.held),
        "" if stats.oldest_wait is None else rough(stats.oldest_wait.total_seconds()),
        str(_sum(stats.ended_last_minute)),
        str(_sum(stats.ended_last_hour)),
        str(_sum(one for one in stats.ended_last_hour if one.status is JobStatus.FAILED)),
    )
    return row(STATS_COLUMNS, cells, note(stats))


def stats_card(stats: JobTypeStats) -> list[str]:
    """Lay out the counts of one type as `name  value` lines."""
    oldest = stats.oldest_wait
    waits = "" if oldest is None else f", the oldest for {rough(oldest.total_seconds())}"
    facts = [
        ("type", stats.job_type),
        ("ready", f"{stats.ready}{waits}"),
        ("blocked", str(stats.blocked)),
        ("scheduled", str(stats.scheduled)),
        ("held", str(stats.held)),
        *((f"priority {one.priority}", _by_state(one)) for one in stats.priorities),
        ("last minute", _ended(stats.ended_last_minute)),
        ("last hour", _ended(stats.ended_last_hour)),
        ("note", note(stats)),
    ]
    return [f"{name:<11}  {clean(value)}" for name, value in facts if value]


def note(stats: JobTypeStats) -> str:
    """Return what keeps all jobs of a type from being started."""
    notes = [
        *([paused(stats.pause)] if stats.pause else []),
        *([] if stats.polled else ["no worker asks for it"]),
    ]
    return "; ".join(notes)


def limit_row(limit: ConcurrencyLimit) -> str:
    most = "none" if limit.max_running is None else str(limit.max_running)
    cells = (limit.name, most, str(limit.running), str(limit.blocked))
    return row(LIMIT_COLUMNS, cells, paused(limit.pause) if limit.pause else "")


def _sum(ended: Iterable[EndedJobs]) -> int:
    return sum(one.count for one in ended)


def _by_state(one: PriorityStats) -> str:
    return f"{one.ready} ready, {one.blocked} blocked, {one.scheduled} scheduled, {one.held} held"


def _ended(ended: Iterable[EndedJobs]) -> str:
    return ", ".join(
        f"{one.count} {one.status}" + (f" {one.reason}" if one.reason else "") for one in ended
    )
