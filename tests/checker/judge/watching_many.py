"""Judges watches of many jobs: WatchJobs."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import combinations

from tests.checker.history import History, Outcome, Record, Step, Stream
from tests.checker.judge.violation import Violation
from tests.checker.timeline import Line, Timeline, Told, lines

EXPECTED_ENDS = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "left", "silent"})
"""`left` and `silent` are the watcher's own: it went elsewhere, or heard nothing for too long."""


def all_lines(history: History) -> list[Line]:
    return [line for w in history.watchers if not w.job_id for line in lines(w)]


def began_by(stream: Stream) -> float:
    """Return when the server had certainly begun the stream."""
    return stream.messages[0].at if stream.messages else float("inf")


def steps_between(record: Record, after: int, until: int) -> list[Step]:
    return [step for step in record.steps if after < step.version <= until]


def check_versions(line: Line) -> Iterator[Violation]:
    """Of one job the version rises from message to message, and nothing follows its deletion."""
    name = line.watcher.name
    for told in line.told():
        job = told.job
        where = f"{name} received {job.job_id} at version {job.version}"
        if told.gone:
            yield Violation("unique", "duplicated", f"{where} after its deletion")
        elif told.before is None or job.version > told.before:
            continue
        elif job.version < told.before:
            yield Violation("ordered", "reordered", f"{where} after version {told.before}")
        else:
            promise = "resumable" if told.seam else "unique"
            yield Violation(promise, "duplicated", f"{where} twice")


def check_steps(
    line: Line, timeline: Timeline, history: History, late: frozenset[str]
) -> Iterator[Violation]:
    """Each message has the transitions since the one before, all of them and once.

    `late` are jobs that were made after the last reading.
    """
    for told in line.told():
        record = history.records.get(told.job.job_id)
        if record is None:
            if told.job.job_id not in late:
                what = f"{line.watcher.name} received {told.job.job_id}, which never existed"
                yield Violation("kept", "wrong", what)
            continue
        yield from _check_steps_of(told, record, line, timeline)
        if not line.watcher.asks_for(told.job):
            what = f"{line.watcher.name} did not ask for {told.job.job_id}"
            yield Violation("reliable", "wrong", what)


def made_late(history: History) -> frozenset[str]:
    """Return jobs that creations without an answer may have made after all jobs were read.

    Such a creation makes one job at most, and none if its job was there already.
    """
    made = {r.job.origin or r.created_by for r in history.records.values() if not r.deleted}
    unanswered = [o for o in history.operations if o.outcome is Outcome.UNKNOWN]
    creations = Counter(
        o.user_id for o in unanswered if o.rpc == "CreateJob" and o.mark not in made
    )
    origins = {o.mark for o in unanswered if o.rpc == "RerunJob"} - made
    repeating = {o.user_id for o in unanswered if o.rpc == "RerunJobs"}
    messages = [m for w in history.watchers for s in w.streams for m in s.messages]
    after = [m.job for m in messages if m.job is not None and m.at > history.read_at]
    new = {job.job_id: job for job in after if job.version == 1}
    late: set[str] = set()
    for job_id, job in new.items():
        if job_id in history.records:
            continue
        if job.origin:
            may_come = job.origin in origins or job.user_id in repeating
        else:
            may_come = creations[job.user_id] > 0
            creations[job.user_id] -= 1
        if may_come:
            late.add(job_id)
    return frozenset(late)


def _check_steps_of(
    told: Told, record: Record, line: Line, timeline: Timeline
) -> Iterator[Violation]:
    job, steps = told.job, told.message.steps
    where = f"{line.watcher.name}, {job.job_id} at version {job.version}:"
    versions = [step.version for step in steps]
    if versions != sorted(set(versions)):
        yield Violation("ordered", "reordered", f"{where} steps {versions}")
    for step in steps:
        if told.before is not None and step.version <= told.before:
            promise = "resumable" if told.seam else "unique"
            yield Violation(promise, "duplicated", f"{where} step {step.version} again")
        elif step not in record.steps or step.version > job.version:
            yield Violation("kept", "wrong", f"{where} {step} is none of its steps")
    if told.message.deleted:
        if job.status != record.job.status:
            what = f"{where} deleted as {job.status}, ended as {record.job.status}"
            yield Violation("terminal", "wrong", what)
        if job.version != record.job.version + 1:
            what = f"{where} deleted after version {record.job.version}"
            yield Violation("kept", "wrong", what)
    for step in steps_between(record, told.before or 0, job.version):
        if step.version in versions:
            continue
        since = timeline.not_before(job.job_id, step.version)
        if told.before is not None or since > began_by(line.root):
            promise = "resumable" if told.seam else "reliable"
            yield Violation(promise, "lost", f"{where} without step {step.version}")


def check_commit_order(line: Line, timeline: Timeline) -> Iterator[Violation]:
    """A change known before another was requested is not delivered after that one."""
    newest, told_last = float("-inf"), None
    for told in line.told():
        if told.listing:
            continue
        job = told.job
        if not told.message.deleted and timeline.known_by(job.job_id, job.version) < newest:
            assert told_last is not None
            what = (
                f"{line.watcher.name} received {job.job_id} at version {job.version} after "
                f"{told_last.job_id} at version {told_last.version}, which was requested later"
            )
            yield Violation("ordered", "reordered", what)
        since = timeline.not_before(job.job_id, job.version)
        if since > newest:
            newest, told_last = since, job


def check_same_order(history: History) -> Iterator[Violation]:
    """Any two watchers receive the changes that both receive in the same order."""
    places = {
        line.watcher.name: {
            (told.job.job_id, told.job.version): place
            for place, told in enumerate(line.told())
            if not told.listing
        }
        for line in all_lines(history)
        if line.last
    }
    for (one, its), (other, theirs) in combinations(places.items(), 2):
        last, last_key = -1, None
        for key in theirs:
            place = its.get(key)
            if place is None:
                continue
            if place < last:
                what = f"{one} and {other} received {last_key} and {key} in different orders"
                yield Violation("ordered", "reordered", what)
            elif place > last:
                last, last_key = place, key


def check_newest(line: Line, timeline: Timeline, records: Iterable[Record]) -> Iterator[Violation]:
    """In the end a watcher knows of each job what the service holds."""
    versions: dict[str, int] = {}
    gone: set[str] = set()
    for told in line.told():
        versions[told.job.job_id] = told.job.version
        if told.message.deleted:
            gone.add(told.job.job_id)
    begin = began_by(line.root)
    for record in records:
        job = record.job
        if not line.watcher.asks_for(job):
            continue
        known = versions.get(job.job_id)
        if known is None and timeline.not_before(job.job_id, job.version) <= begin:
            continue  # perhaps it had ended before the watch began
        where = f"{line.watcher.name} last knew of {job.job_id}"
        if record.deleted:
            if job.job_id not in gone:
                yield Violation("reliable", "lost", f"{where} version {known}, not its deletion")
        elif job.job_id in gone:
            yield Violation("kept", "wrong", f"{where} a deletion that never was")
        elif known is None or known < job.version:
            yield Violation("reliable", "lost", f"{where} {known} of {job.version}")


def check_ends(history: History) -> Iterator[Violation]:
    """A watch of many jobs has no end, every token is good, and it is in sync once."""
    for watcher in history.watchers:
        for number, stream in enumerate(watcher.streams):
            if sum(message.synced for message in stream.messages) > 1:
                what = f"{watcher.name}: stream {number} came into sync twice"
                yield Violation("unique", "wrong", what)
            if watcher.job_id or stream.end in EXPECTED_ENDS:
                continue
            promise = "reliable" if stream.after is None else "resumable"
            what = f"{watcher.name}: stream {number} ended with {stream.end or 'nothing'}"
            yield Violation(promise, "wrong", what)


def check_removed(history: History) -> Iterator[Violation]:
    """A deletion brings all assets of its job, in the answer and in each watch of many jobs."""
    for operation in history.operations:
        record = history.records.get(operation.job_id)
        if operation.rpc == "DeleteJob" and operation.outcome is Outcome.ACKNOWLEDGED and record:
            took = operation.answered - operation.sent
            if took > history.retain_deletions and not operation.removed:
                continue  # the deletion was forgotten before its assets were read
            yield from _check_removed("the answer", operation.removed, record)
    for watcher in history.watchers:
        for stream in watcher.streams:
            for message in stream.messages:
                record = history.records.get(message.job.job_id) if message.job else None
                if message.deleted and record:
                    yield from _check_removed(watcher.name, message.removed, record)


def _check_removed(where: str, removed: tuple[str, ...], record: Record) -> Iterator[Violation]:
    if sorted(removed) != sorted(record.assets):
        what = f"{where}: {record.job.job_id} had {record.assets}, and {removed} came"
        kind = "wrong" if set(removed) - set(record.assets) else "lost"
        yield Violation("removed", kind, what)
