"""Judges groups: they count their jobs, and end with the last of them."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.checker.history import Group, History, Outcome, Record, Snapshot
from tests.checker.judge.violation import Violation
from tests.checker.judge.writing import GIVEN
from tests.checker.timeline import observations

CANCEL_SECONDS = 10.0
"""So long after its cancellation no job of a group is given to a worker, if nothing is broken."""


def check_groups(history: History) -> Iterator[Violation]:
    """A group ends when it is sealed and its jobs have ended, as they have, and not before.

    That its counts are those of its jobs between any two commits is seen in the database; see
    `counted`.
    """
    seen: dict[str, dict[int, Snapshot]] = defaultdict(dict)
    for job, _ in observations(history):
        if job.group is not None:
            seen[job.job_id][job.version] = job
    for versions in seen.values():
        yield from _check_versions([versions[each] for each in sorted(versions)])
    jobs: dict[str, list[Record]] = defaultdict(list)
    for record in history.records.values():
        jobs[record.job.group_id].append(record)
    for job_id, record in history.records.items():
        if record.job.group is not None and not record.deleted:
            yield from _check_end(record, jobs[job_id])
        group = history.records.get(record.job.group_id)
        if record.job.group_id and not record.deleted and (group is None or group.deleted):
            yield _wrong("lost", f"the group of {job_id} is not there")
    for operation in history.operations:
        told = operation.told
        sealed = told is None or told.group is None or told.group.sealed
        if operation.rpc == "SealGroup" and not sealed:
            yield _wrong("lost", f"{operation.job_id} was sealed, and is not")
    yield from _check_cancelled(history)


def _wrong(kind: str, what: str) -> Violation:
    return Violation("grouped", "lost" if kind == "lost" else "wrong", what)


def _check_versions(versions: list[Snapshot]) -> Iterator[Violation]:
    before: Snapshot | None = None
    last = versions[-1]
    for job in versions:
        group = job.group
        assert group is not None
        where = f"group {job.job_id} at version {job.version}, {job.status}: {group}"
        if group.total != group.open + group.ended:
            yield _wrong("wrong", f"{where} has another total")
        is_over = group.sealed and not group.open
        # One that is QUEUED passes through PROCESSING in the same commit.
        passes = job.status == "PROCESSING" and job.version == last.version - 1
        if job.terminal is not is_over and not (is_over and passes):
            yield _wrong("wrong", f"{where} ends when it is sealed and its jobs have ended")
        if group.fail_fast and group.failed and not group.sealed:
            yield _wrong("lost", f"{where} is open after a failure")
        if job.status == "QUEUED" and group.queued != group.total:
            yield _wrong("lost", f"{where} has not begun with its jobs")
        if before is not None and before.group is not None:
            falls = [
                name
                for name in ("total", "ended", "failed", "sealed")
                if getattr(group, name) < getattr(before.group, name)
            ]
            if falls or job.progress < before.progress:
                yield _wrong("wrong", f"{where} comes after {before}")
        before = job


def _check_end(record: Record, jobs: list[Record]) -> Iterator[Violation]:
    group = record.job.group
    assert group is not None
    found = Counter(each.job.status for each in jobs)
    expected = Group(
        total=len(jobs),
        queued=found["QUEUED"],
        processing=found["PROCESSING"],
        completed=found["COMPLETED"],
        partial=found["PARTIAL"],
        failed=found["FAILED"],
        sealed=group.sealed,
        fail_fast=group.fail_fast,
    )
    where = f"group {record.job.job_id}"
    # Jobs are deleted before their group, perhaps by a call that was not answered.
    if group != expected and not any(each.deleted for each in jobs):
        yield _wrong("wrong", f"{where}: {group}, and its jobs are {expected}")
    status = "PARTIAL"
    if group.completed == group.total:
        status = "COMPLETED"
    elif not group.completed and not group.partial:
        status = "FAILED"
    empty = not group.total and record.job.reason in ("QUEUE_EXPIRED", "CANCELLED")
    if record.job.terminal and record.job.status != status and not empty:
        yield _wrong("wrong", f"{where} ended as {record.job.status}: {group}")


def _check_cancelled(history: History) -> Iterator[Violation]:
    if history.faults:
        return
    asked = {
        operation.job_id: operation.answered
        for operation in history.operations
        if operation.rpc == "CancelJob" and operation.outcome is Outcome.ACKNOWLEDGED
    }
    for operation in history.operations:
        told = operation.told
        if operation.rpc in GIVEN and told is not None and told.group_id in asked:
            late = operation.sent - asked[told.group_id]
            if late > CANCEL_SECONDS:
                what = f"{told.job_id} was started {late:.1f} s after its group was cancelled"
                yield _wrong("lost", what)
