"""Judges creations that must be refused, and those that must not."""

from collections.abc import Iterator

from tests.checker.history import History, Outcome
from tests.checker.judge.violation import Violation


def check_refusals(history: History) -> Iterator[Violation]:
    """Of a refused creation nothing is kept, and its unique key is free for another one."""
    made = {record.created_by: job_id for job_id, record in history.records.items()}
    for operation in history.operations:
        if operation.owed is Outcome.REFUSED and operation.mark in made:
            what = f"{made[operation.mark]} was made by {operation.mark}, which must be refused"
            yield Violation("atomic", "wrong", what)
        if operation.owed is Outcome.REFUSED and operation.outcome is Outcome.ACKNOWLEDGED:
            yield Violation("atomic", "wrong", f"{operation.mark} was acknowledged")
        if operation.owed is Outcome.ACKNOWLEDGED and operation.outcome is Outcome.REFUSED:
            what = f"{operation.mark} was refused, although its key was free, or its group there"
            yield Violation("single", "wrong", what)
