"""What a history says of the order of the commits, without asking the server."""

import bisect
from collections.abc import Iterator
from dataclasses import dataclass

from tests.checker.history import History, Message, Place, Snapshot, Stream, Watcher


class Timeline:
    """Bounds of the time at which each version of each job was committed.

    A change is committed after it was requested and before any client received it or a
    later one of the same job: the real-time order of linearizability.
    """

    def __init__(self, history: History) -> None:
        asked: dict[str, list[tuple[int, float]]] = {}
        told: dict[str, list[tuple[int, float]]] = {}
        for snapshot, at in observations(history):
            told.setdefault(snapshot.job_id, []).append((snapshot.version, at))
        outcomes = {
            (job_id, attempt.number): attempt.outcome
            for job_id, record in history.records.items()
            for attempt in record.attempts
        }
        for operation in history.operations:
            if operation.rpc == "ReleaseJob":
                # If the lease had expired, the answer has the version that this made before.
                outcome = outcomes.get((operation.job_id, operation.attempt))
                if outcome != "RELEASED":
                    continue
            if operation.changed and operation.told is not None:
                entry = (operation.told.version, operation.sent)
                asked.setdefault(operation.told.job_id, []).append(entry)
        self._not_before = {job_id: _Steps(asked[job_id]) for job_id in asked}
        # Mirrored: the earliest of all that are at least as new.
        self._known_by = {
            job_id: _Steps([(-version, -at) for version, at in told[job_id]]) for job_id in told
        }

    def not_before(self, job_id: str, version: int) -> float:
        """Return a time before which this version was certainly not committed."""
        steps = self._not_before.get(job_id)
        return float("-inf") if steps is None else steps.greatest_up_to(version)

    def known_by(self, job_id: str, version: int) -> float:
        """Return a time by which this version was certainly committed."""
        steps = self._known_by.get(job_id)
        return float("inf") if steps is None else -steps.greatest_up_to(-version)


class _Steps:
    """The greatest value of all keys up to one."""

    def __init__(self, entries: list[tuple[int, float]]) -> None:
        self._keys: list[int] = []
        self._values: list[float] = []
        for key, value in sorted(entries):
            greatest = max(value, self._values[-1]) if self._values else value
            self._keys.append(key)
            self._values.append(greatest)

    def greatest_up_to(self, key: int) -> float:
        index = bisect.bisect_right(self._keys, key)
        return self._values[index - 1] if index else float("-inf")


def observations(history: History) -> Iterator[tuple[Snapshot, float]]:
    """Yield every whole job that any client received, and when."""
    for operation in history.operations:
        if operation.told is not None:
            yield operation.told, operation.answered
    for watcher in history.watchers:
        for stream in watcher.streams:
            for message in stream.messages:
                if message.job is not None and not message.deleted:
                    yield message.job, message.at
    for record in history.records.values():
        yield record.job, float("inf")


@dataclass(frozen=True, slots=True)
class Told:
    """A message about a job, and what the same line had received of this job before.

    `before` is the version, None for the first message of the job. `seam` says that it is the
    job's first message in a resumed stream, `listing` that it came before the
    first stream's `synced`, `catching_up` before its own stream's, `gone` that the job's
    deletion had been received already.
    """

    message: Message
    job: Snapshot
    before: int | None
    seam: bool
    listing: bool
    catching_up: bool
    gone: bool


@dataclass(frozen=True, slots=True)
class Line:
    """Streams of one watcher, each begun where the one before was left: one story.

    A watcher that goes back to an older token begins another line, with the
    beginning in common. What it heard and went back on is a line too, to which
    nothing more is owed: `last` is false.
    """

    watcher: Watcher
    parts: tuple[tuple[Stream, int], ...]
    last: bool

    @property
    def root(self) -> Stream:
        return self.parts[0][0]

    def messages(self) -> Iterator[tuple[Stream, Message]]:
        for stream, count in self.parts:
            for message in stream.messages[:count]:
                yield stream, message

    def told(self) -> Iterator[Told]:
        """Yield the messages about jobs."""
        versions: dict[str, int] = {}
        gone: set[str] = set()
        here: set[str] = set()
        current = self.root
        synced = synced_here = False
        for stream, message in self.messages():
            if stream is not current:
                current, here, synced_here = stream, set(), False
            synced, synced_here = synced or message.synced, synced_here or message.synced
            job = message.job
            if job is None:
                continue
            seam = stream.after is not None and job.job_id not in here
            before = versions.get(job.job_id)
            yield Told(message, job, before, seam, not synced, not synced_here, job.job_id in gone)
            here.add(job.job_id)
            versions[job.job_id] = max(before or 0, job.version)
            if message.deleted:
                gone.add(job.job_id)


def lines(watcher: Watcher) -> list[Line]:
    """Return every line of a watcher of many jobs, the one that lived to the end last."""
    paths: list[tuple[tuple[Stream, int], ...]] = []
    for stream in watcher.streams:
        paths.append((*_path_to(stream.after, paths), (stream, len(stream.messages))))
    resumed = {stream.after for stream in watcher.streams if stream.after is not None}
    found = []
    for number, (stream, path) in enumerate(zip(watcher.streams, paths, strict=True)):
        final = number == len(watcher.streams) - 1
        went_on = Place(number, len(stream.messages) - 1) in resumed
        if final or (stream.messages and not went_on):
            found.append(Line(watcher, path, final and not watcher.left))
    return found


def _path_to(
    place: Place | None, paths: list[tuple[tuple[Stream, int], ...]]
) -> tuple[tuple[Stream, int], ...]:
    if place is None:
        return ()
    *earlier, (stream, _) = paths[place.stream]
    return (*earlier, (stream, place.message + 1))
