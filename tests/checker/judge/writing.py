"""Judges what was done to jobs: acknowledged means kept, unknown means all or nothing."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from math import inf

from tests.checker.history import History, Operation, Outcome, Record
from tests.checker.judge.violation import Violation
from tests.checker.timeline import observations

ENDS = frozenset({"MarkCompleted", "MarkPartial", "MarkFailed", "TransitionJob"})
GIVEN = frozenset({"ClaimJobs", "StartJob", "Work"})
DELETIONS = frozenset({"DeleteJob", "DeleteJobs"})
RETRYABLE = "FailRetryably"
"""MarkFailed with `retryable`: an end only if no attempt is left."""
EDGES = frozenset(
    {("QUEUED", "PROCESSING"), *(("PROCESSING", end) for end in ("COMPLETED", "PARTIAL", "FAILED"))}
)


def check_kept(history: History) -> Iterator[Violation]:
    """What was acknowledged is there, and nothing was answered with a bug."""
    for what, count in history.refusals.items():
        if what.endswith("INTERNAL INTERNAL"):
            yield Violation("kept", "wrong", f"{count} times {what}")
    versions: dict[tuple[str, int], Operation] = {}
    contents = _contents(history)
    messages = {(job.job_id, job.version): job.message for job, _ in observations(history)}
    for operation in history.operations:
        if operation.result_of not in ("", operation.job_id):
            what = f"{operation.rpc} {operation.mark} of {operation.job_id} was answered with the"
            yield Violation("ordered", "reordered", f"{what} result of {operation.result_of}")
        if operation.outcome is not Outcome.ACKNOWLEDGED:
            continue
        where = f"{operation.rpc} {operation.mark} of {operation.job_id}, acknowledged"
        record = history.records.get(operation.job_id)
        if record is None:
            yield Violation("kept", "lost", f"{where}: the job is not there")
            continue
        yield from _check_found(operation, record, where)
        version = operation.told.version if operation.told is not None else operation.version
        if operation.changed and version:
            key = (operation.job_id, version)
            said = messages.get(key, operation.mark)
            if operation.rpc == "UpdateProgress" and said != operation.mark:
                yield Violation("kept", "lost", f"{where} as version {version}, which says {said}")
            if contents.get(key, 0) > 1:
                what = f"{where} as version {key[1]}, which was sent with other content"
                yield Violation("kept", "lost", what)
            if key in versions:
                what = f"{where} as version {key[1]}, like {versions[key].rpc} before"
                yield Violation("kept", "lost", what)
            versions[key] = operation


def _check_found(operation: Operation, record: Record, where: str) -> Iterator[Violation]:
    told = operation.told
    version = operation.version if told is None else told.version
    if version > record.job.version:
        what = f"{where} at version {version}, has only {record.job.version}"
        yield Violation("kept", "lost", what)
    if operation.rpc == "CreateJob" and record.created_by != operation.mark:
        yield Violation("kept", "wrong", f"{where}: is that of {record.created_by}")
    ends = operation.rpc in ENDS or (
        operation.rpc == RETRYABLE and told is not None and told.terminal
    )
    if ends and record.ended_by != operation.mark:
        yield Violation("kept", "lost", f"{where}: ended by {record.ended_by or 'the service'}")
    if operation.rpc == "CreateAsset" and operation.assets[0] not in record.assets:
        yield Violation("kept", "lost", f"{where}: not linked")
    if operation.rpc in DELETIONS and not record.deleted:
        yield Violation("kept", "lost", f"{where}: still there")


def check_whole(history: History) -> Iterator[Violation]:
    """Each operation was done once and wholly, or not at all."""
    yield from _check_created_once(history)
    yield from _check_claimed_once(history)
    yield from _check_reported_once(history)
    asked: dict[str, list[Operation]] = defaultdict(list)
    for operation in history.operations:
        if operation.assets:
            asked[operation.job_id].append(operation)
    for record in history.records.values():
        operations = asked[record.job.job_id]
        yield from _check_assets(record, operations)
        yield from _check_path(record)
    for (job_id, version), count in _contents(history).items():
        if count > 1:
            what = f"{job_id} at version {version} was sent with {count} contents"
            yield Violation("atomic", "wrong", what)


def _check_created_once(history: History) -> Iterator[Violation]:
    """A request makes one job at a time: that of a deleted job may be sent again by a late call."""
    seen: dict[str, float] = {}
    for snapshot, at in observations(history):
        seen[snapshot.job_id] = min(at, seen.get(snapshot.job_id, at))
    deleted: dict[str, float] = {}
    for operation in history.operations:
        if operation.rpc in DELETIONS:
            deleted.setdefault(operation.job_id, operation.sent)
    made: dict[tuple[str, str], list[str]] = defaultdict(list)
    for job_id, record in history.records.items():
        made[record.created_by, record.job.origin].append(job_id)
    for (mark, _), jobs in made.items():
        jobs.sort(key=lambda job_id: seen[job_id])
        if any(deleted.get(job, inf) >= seen[after] for job, after in pairwise(jobs)):
            yield Violation("atomic", "duplicated", f"CreateJob {mark} made {len(jobs)} jobs")


def _check_claimed_once(history: History) -> Iterator[Violation]:
    claims = Counter(
        (o.told.job_id, o.told.attempt) for o in history.operations if o.rpc in GIVEN and o.told
    )
    for (job_id, attempt), count in claims.items():
        if count > 1:
            what = f"attempt {attempt} of {job_id} was given to {count} workers"
            yield Violation("atomic", "duplicated", what)


def _check_reported_once(history: History) -> Iterator[Violation]:
    """A report that was sent again is not applied again: its message does not come back."""
    marks = {o.mark for o in history.operations if o.rpc == "UpdateProgress" and o.mark}
    messages = {(job.job_id, job.version): job.message for job, _ in observations(history)}
    last: dict[str, str] = {}
    over: set[str] = set()
    for (job_id, version), message in sorted(messages.items()):
        if message not in marks or message == last.get(job_id):
            continue
        if message in over:
            what = f"UpdateProgress {message} of {job_id} was applied again at version {version}"
            yield Violation("atomic", "duplicated", what)
        over.add(last.get(job_id, ""))
        last[job_id] = message


def _check_assets(record: Record, operations: list[Operation]) -> Iterator[Violation]:
    linked = Counter(record.assets)
    for operation in operations:
        found = [linked.pop(path, 0) for path in operation.assets]
        where = f"{operation.rpc} {operation.mark} of {record.job.job_id} has assets {found}"
        if max(found) > 1:
            yield Violation("atomic", "duplicated", where)
        if operation.rpc in ENDS:
            whole = record.ended_by == operation.mark
            if any(bool(count) != whole for count in found):
                ended = "ended" if whole else "did not end"
                yield Violation("atomic", "wrong", f"{where} and {ended} it")
        elif operation.outcome is Outcome.REFUSED and any(found):
            yield Violation("atomic", "wrong", f"{where} and was refused")
    if linked:
        what = f"{record.job.job_id} has assets that nobody asked for: {sorted(linked)}"
        yield Violation("atomic", "wrong", what)


def _check_path(record: Record) -> Iterator[Violation]:
    """The steps lead from QUEUED to where the job stands, one edge after the other."""
    status, version = "QUEUED", 1
    for step in record.steps:
        edge = (step.from_status, step.to_status)
        if step.from_status != status or edge not in EDGES or step.version < version:
            yield Violation("atomic", "wrong", f"{record.job.job_id} took the steps {record.steps}")
            return
        status, version = step.to_status, step.version
    if status != record.job.status or version > record.job.version:
        what = f"{record.job.job_id} is {record.job.status} by the steps {record.steps}"
        yield Violation("atomic", "wrong", what)


def _contents(history: History) -> dict[tuple[str, int], int]:
    contents: dict[tuple[str, int], set[bytes]] = defaultdict(set)
    for snapshot, _ in observations(history):
        contents[snapshot.job_id, snapshot.version].add(snapshot.content)
    return {key: len(found) for key, found in contents.items()}


def check_terminal(history: History) -> Iterator[Violation]:
    """Every job ends, and nothing is seen of it after its end."""
    for record in history.records.values():
        if not record.job.terminal:
            what = f"{record.job.job_id} is {record.job.status} when all is over"
            yield Violation("terminal", "wrong", what)
    newest: dict[str, int] = {}
    ends: dict[str, int] = {}
    for snapshot, _ in observations(history):
        job_id, version = snapshot.job_id, snapshot.version
        newest[job_id] = max(version, newest.get(job_id, 0))
        if snapshot.terminal:
            ends[job_id] = min(version, ends.get(job_id, version))
    for job_id, version in ends.items():
        if newest[job_id] > version:
            what = f"{job_id} ended at version {version} and has {newest[job_id]}"
            yield Violation("terminal", "wrong", what)
