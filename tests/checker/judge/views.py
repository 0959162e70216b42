"""Judges which payloads came with a job: those that were asked for, and where they belong."""

from collections.abc import Iterator

from tests.checker.history import History, Message, Record, Snapshot, Watcher
from tests.checker.judge.violation import Violation
from tests.checker.timeline import lines

WHOLE = frozenset({"ClaimJobs", "Work"})
"""Answers whose jobs a worker needs with their parameters. All others are in the view BASIC."""


def check_views(history: History) -> Iterator[Violation]:
    """A payload comes with the view FULL, where it says, and never with the view BASIC."""
    for operation in history.operations:
        record = history.records.get(operation.job_id)
        if operation.told is not None and record is not None:
            where = f"{operation.rpc} of {operation.job_id}"
            yield from _check(where, operation.told, record, begins=operation.rpc in WHOLE)
    for watcher in history.watchers:
        yield from (_check_one if watcher.job_id else _check_many)(watcher, history)


def _check_one(watcher: Watcher, history: History) -> Iterator[Violation]:
    """Parameters come with the first message of a stream, the result with the terminal state."""
    record = history.records.get(watcher.job_id)
    for stream in watcher.streams if record is not None else ():
        for number, message in enumerate(stream.messages):
            if message.job is not None and record is not None:
                where = f"{watcher.name}, {watcher.job_id}, message {number}:"
                first, last = number == 0, message.job.terminal
                yield from _check(
                    where,
                    message.job,
                    record,
                    begins=watcher.full and first,
                    ends=watcher.full and last,
                )


def _check_many(watcher: Watcher, history: History) -> Iterator[Violation]:
    """Payloads come with all up to `synced`, before the start and with transitions."""
    for line in lines(watcher):
        for told in line.told():
            record = history.records.get(told.job.job_id)
            if record is not None:
                where = f"{watcher.name}, {told.job.job_id} at version {told.job.version}:"
                whole = watcher.full and (told.catching_up or _is_news(told.message))
                ends = whole and told.job.terminal
                yield from _check(where, told.job, record, begins=whole, ends=ends)


def _is_news(message: Message) -> bool:
    """Whether it is a creation, an update before the start, or a transition."""
    assert message.job is not None
    return not message.deleted and (bool(message.steps) or message.job.status == "QUEUED")


def _check(
    where: str, job: Snapshot, record: Record, *, begins: bool, ends: bool = False
) -> Iterator[Violation]:
    details = record.job.details
    for name, mark, due in (
        ("parameters", job.parameters, record.created_by if begins else ""),
        ("result", job.result, record.ended_by if ends else ""),
        ("details", job.details, details if ends else ""),
    ):
        # They are gone at once if the job is deleted.
        if mark != due and not (record.deleted and not mark):
            kind = "wrong" if mark else "lost"
            yield Violation("views", kind, f"{where} {name} {mark!r} instead of {due!r}")
