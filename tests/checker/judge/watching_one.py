"""Judges watches of one job: WatchJob."""

from collections.abc import Iterator

from tests.checker.history import History, Message, Record, Stream, Watcher
from tests.checker.judge.violation import Violation
from tests.checker.judge.watching_many import EXPECTED_ENDS, steps_between
from tests.checker.timeline import Timeline

LATE_SECONDS = 10.0
"""A watch that is open for so long after a job's end, with nothing broken, has received the end."""


def check_streams(history: History, timeline: Timeline) -> Iterator[Violation]:
    """Judge each stream by itself: the watcher says where it wants to go on."""
    for watcher in history.watchers:
        if not watcher.job_id:
            continue
        record = history.records.get(watcher.job_id)
        if record is None:
            what = f"{watcher.name} watched {watcher.job_id}, which is not there any more"
            yield Violation("kept", "lost", what)
            continue
        for stream in watcher.streams:
            yield from _check_messages(watcher, stream, record)
            yield from _check_end(watcher, stream, record)
            if _is_late(stream, timeline.known_by(watcher.job_id, record.job.version), history):
                what = f"{watcher.name} stayed, and received no end of {watcher.job_id}"
                yield Violation("reliable", "lost", what)
        yield from _check_all_told(watcher, record)


def _check_messages(watcher: Watcher, stream: Stream, record: Record) -> Iterator[Violation]:
    version, last = stream.after_version, None
    for number, message in enumerate(stream.messages):
        where = f"{watcher.name}, {watcher.job_id}, message {number}:"
        job = message.job
        if last is not None and last.terminal:
            yield Violation("terminal", "wrong", f"{where} follows the end")
        if message.heartbeat and job is None:
            continue
        if job is None or job.job_id != watcher.job_id:
            yield Violation("reliable", "wrong", f"{where} is about {job}")
            continue
        # The first message has the job in its present state, even if that is known.
        repeats = number == 0
        if job.version < version:
            what = f"{where} version {job.version} after {version}"
            yield Violation("ordered", "reordered", what)
        elif job.version == version and not repeats:
            yield Violation("unique", "duplicated", f"{where} version {version} twice")
        yield from _check_steps(where, message, record, version, resumed=number == 0)
        version, last = max(version, job.version), job


def _check_steps(
    where: str, message: Message, record: Record, version: int, *, resumed: bool
) -> Iterator[Violation]:
    assert message.job is not None
    told = [step.version for step in message.steps]
    if told != sorted(set(told)):
        yield Violation("ordered", "reordered", f"{where} steps {told}")
    for step in message.steps:
        if step.version <= version:
            promise = "resumable" if resumed else "unique"
            yield Violation(promise, "duplicated", f"{where} step {step.version} again")
        elif step not in record.steps or step.version > message.job.version:
            yield Violation("kept", "wrong", f"{where} {step} is none of its steps")
    for step in steps_between(record, version, message.job.version):
        if step.version not in told:
            promise = "resumable" if resumed and version else "reliable"
            yield Violation(promise, "lost", f"{where} without step {step.version}")


def _check_end(watcher: Watcher, stream: Stream, record: Record) -> Iterator[Violation]:
    where = f"{watcher.name}, {watcher.job_id}: the stream ended with {stream.end or 'nothing'}"
    last = stream.messages[-1].job if stream.messages else None
    over = last is not None and last.terminal
    if stream.end == "OK":
        if not over:
            yield Violation("terminal", "lost", f"{where}, without the job's terminal state")
    elif stream.end == "NOT_FOUND":
        if not record.deleted:
            yield Violation("kept", "wrong", f"{where}, and the job is there")
    elif stream.end not in EXPECTED_ENDS:
        yield Violation("reliable", "wrong", where)


def _is_late(stream: Stream, ended: float, history: History) -> bool:
    """Whether the watcher left a stream that should have had the job's end long before."""
    calm = max((fault.ended for fault in history.faults), default=0.0)
    since = max(ended, stream.opened, calm)
    told = any(message.job is not None and message.job.terminal for message in stream.messages)
    left = stream.end == "left" and stream.closed is not None and bool(stream.messages)
    return left and not told and (stream.closed or 0.0) > since + LATE_SECONDS


def _check_all_told(watcher: Watcher, record: Record) -> Iterator[Violation]:
    """A watcher that stayed has received the terminal state, unless the job was deleted first."""
    ended = watcher.streams and watcher.streams[-1].end in ("OK", "NOT_FOUND")
    if not watcher.left and not ended:
        version = max(
            (m.job.version for s in watcher.streams for m in s.messages if m.job), default=0
        )
        what = f"{watcher.name} last knew of {watcher.job_id} {version} of {record.job.version}"
        yield Violation("reliable", "lost", what)
