"""Judges who went next, by what the database held: see docs/decisions/0056-who-goes-next.md."""

from collections.abc import Iterator

from tests.checker.clock import had_shown
from tests.checker.history import History, Outcome
from tests.checker.judge.violation import Violation

LATE_SECONDS = 10.0
"""A job whose time has come is in its queue by then, unless something is broken."""

MOST_APART = 150
"""Turns by which queues that take turns may be apart. A claim gives up to 100 jobs together, and
servers plan theirs at the same time."""

MOST_OVERTAKING = 2
OVERTAKING_SHARE = 0.2
"""Blocked jobs that are made ready before others of a higher priority: so many, and so large a
share of those that were chosen among several priorities."""


def check_counters(history: History) -> Iterator[Violation]:
    """Counters are what the jobs are, in each snapshot, and nobody who may go on is forgotten."""
    for recount in history.recounts:
        for what in recount.miscounted:
            yield Violation("counted", "wrong", what)
        for what in recount.forgotten:
            yield Violation("unblocked", "lost", what)
        broken = any(
            fault.began <= recount.at <= (fault.ended or recount.at) + LATE_SECONDS
            for fault in history.faults
        )
        if recount.overdue > LATE_SECONDS and not broken:
            what = f"a job waits {recount.overdue:.1f} s after its time"
            yield Violation("scheduled", "lost", what)


def check_unblocked(history: History) -> Iterator[Violation]:
    """Of the blocked jobs of a key, those of the highest priority are made ready.

    One is passed over while another transaction has locked it, so a few may be overtaken.
    """
    overtaking = [each for each in history.unblocked if each.priority < each.highest_left]
    choices = sum(each.priority != each.highest_left for each in history.unblocked)
    if len(overtaking) > MOST_OVERTAKING and len(overtaking) > choices * OVERTAKING_SHARE:
        what = f"{len(overtaking)} of {choices} unblocked jobs overtook others, as {overtaking[0]}"
        yield Violation("unblocked", "wrong", what)


def check_starts(history: History) -> Iterator[Violation]:
    """No start exceeds the limit of its key, nor comes during a pause, nor before its time."""
    for start in history.starts:
        wrong = start.wrong
        if not had_shown(start.due, by=start.time, jumps=history.jumps):
            wrong = "its time had not come"
        if wrong:
            yield Violation("limited", "wrong", f"{start.job_id} ({start.key}): {wrong}")


def check_shares(history: History) -> Iterator[Violation]:
    """No tenant is ahead of the others of its level, or behind them."""
    for recount in history.recounts:
        for share in recount.shares:
            if share.first < -MOST_APART or share.last > MOST_APART:
                yield Violation("fair", "wrong", str(share))


def check_unique_keys(history: History) -> Iterator[Violation]:
    """A unique key has one active job, which a creation with that key returns."""
    for recount in history.recounts:
        for what in recount.doubles:
            yield Violation("single", "duplicated", what)
    for operation in history.operations:
        returned = operation.rpc == "ReturnExisting" and operation.outcome is Outcome.ACKNOWLEDGED
        if returned and (operation.told is None or operation.told.unique != operation.mark):
            yield Violation("single", "wrong", f"{operation.mark} is that of {operation.told}")
