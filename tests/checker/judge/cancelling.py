"""Judges which jobs say that they ended because their cancellation was requested."""

from collections.abc import Collection, Iterator

from tests.checker.history import History, Outcome
from tests.checker.judge.violation import Violation
from tests.checker.timeline import observations

CANCELLED = "CANCELLED"


def check_cancelled(history: History) -> Iterator[Violation]:
    """A job that was cancelled says so, and no other job does.

    It was cancelled if its cancellation was requested and its worker did not end it.
    """
    cancellations = [
        operation
        for operation in history.operations
        if operation.rpc == "CancelJob" and operation.outcome is not Outcome.REFUSED
    ]
    asked = {operation.job_id for operation in cancellations}
    asked |= set(_within(asked, history))
    before_its_end = {
        operation.job_id
        for operation in cancellations
        if operation.told is not None
        and not operation.told.terminal
        # A group ends as its jobs do, which their workers may end.
        and operation.told.group is None
    }
    for job_id, record in history.records.items():
        ended_so = bool(record.steps) and record.steps[-1].reason == CANCELLED
        if ended_so and not record.job.cancelled:
            yield Violation("cancelled", "lost", f"{job_id} was cancelled, and does not say so")
        if record.job.cancelled and not ended_so:
            yield Violation("cancelled", "wrong", f"{job_id} was not cancelled, and says so")
        if record.job.cancelled and (record.ended_by or job_id not in asked):
            by = record.ended_by or "nobody asked for it"
            yield Violation("cancelled", "wrong", f"{job_id} says that it was cancelled: {by}")
        if job_id in before_its_end and not (record.ended_by or record.job.cancelled):
            what = f"{job_id} ended without its worker, and was not cancelled as asked"
            yield Violation("cancelled", "lost", what)
    for job, _ in observations(history):
        if job.cancelled is not (job.status == "FAILED" and job.reason == CANCELLED):
            kind = f"{job.status} {job.reason}".rstrip()
            what = f"{job.job_id} at version {job.version} is {kind}: cancelled is {job.cancelled}"
            yield Violation("cancelled", "wrong", what)


def _within(asked: Collection[str], history: History) -> Iterator[str]:
    """Yield the jobs within cancelled groups, and within those that their first failure cancels."""
    for job_id, record in history.records.items():
        group = history.records.get(record.job.group_id)
        while group is not None and group.job.group is not None:
            counts = group.job.group
            if group.job.job_id in asked or (counts.fail_fast and counts.failed):
                yield job_id
                break
            group = history.records.get(group.job.group_id)
