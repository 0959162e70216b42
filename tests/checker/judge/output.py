"""Judges output: what was acknowledged is read once, in order, by all readers, and nothing else."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from jobledger_server.domain.output import most_pieces
from tests.checker.clients.output_writers import LEAST_BYTES
from tests.checker.history import (
    Append,
    History,
    Outcome,
    OutputPlace,
    OutputRead,
    OutputStream,
    OutputWatcher,
    Piece,
    Record,
)
from tests.checker.judge.violation import Kind, Violation
from tests.checker.judge.watching_many import EXPECTED_ENDS

MAKE_VERSIONS = frozenset(
    {"CancelJob", "CancelJobs", "CreateAsset", "RenewLease", "UpdateJob", "UpdateProgress"}
)
"""What may make a version of a job, besides its creation, its attempts and its end."""

Name = tuple[str, str]
"""A job, and the name of a stream of its output."""


def check_output(history: History) -> Iterator[Violation]:
    """Judge each stream by all that was asked for and all that was read of it."""
    appends: dict[Name, list[Append]] = defaultdict(list)
    for append in history.appends:
        appends[append.job_id, append.stream].append(append)
    reads: dict[Name, list[OutputRead]] = defaultdict(list)
    for read in history.output_reads:
        reads[read.job_id, read.stream].append(read)
    watchers: dict[Name, list[OutputWatcher]] = defaultdict(list)
    for watcher in history.output_watchers:
        watchers[watcher.job_id, watcher.stream].append(watcher)
    for name in dict.fromkeys([*appends, *reads, *watchers]):
        record = history.records.get(name[0])
        if record is None:  # `kept` says so
            continue
        final = record.outputs.get(name[1], ())
        yield from _Judged(name, record, appends[name], reads[name], watchers[name], final).check()
    for record in history.records.values():
        yield from _check_dropped(record, history.job_output)
    yield from _check_versions(history)
    for what in history.unsent:
        yield Violation("output", "lost", what)
    for recount in history.recounts:
        for what in recount.overfull:
            yield Violation("output", "wrong", f"too much is stored of {what}")


@dataclass(frozen=True, slots=True)
class _Judged:
    """One stream, and all that is known of it."""

    name: Name
    record: Record
    appends: Sequence[Append]
    reads: Sequence[OutputRead]
    watchers: Sequence[OutputWatcher]
    final: Sequence[OutputRead]

    def check(self) -> Iterator[Violation]:
        for read in (*self.reads, *self.final):
            yield from self._check_read(read)
        for watcher in self.watchers:
            yield from self._check_watcher(watcher)
        yield from self._check_final()
        known = _Known()
        for piece in self._pieces():
            if not known.add(piece):
                what = f"{piece.offset} to {piece.next_offset} are not what others read"
                yield self._wrong("wrong", what)
        yield from self._check_content(known)

    def _wrong(self, kind: Kind, what: str) -> Violation:
        return Violation("output", kind, f"{self.name[0]}, stream '{self.name[1]}': {what}")

    def _pieces(self) -> Iterator[Piece]:
        for read in (*self.final, *self.reads):
            yield read.piece
        for watcher in self.watchers:
            for stream in watcher.streams:
                yield from stream.messages

    @property
    def _begin(self) -> int:
        """Where what is stored in the end begins."""
        return self.final[0].piece.offset if self.final else 0

    @property
    def _end(self) -> int:
        return self.final[-1].piece.next_offset if self.final else 0

    def _check_read(self, read: OutputRead) -> Iterator[Violation]:
        piece, where = read.piece, f"a read of {read.place}"
        if read.max_bytes and len(piece.data) > read.max_bytes:
            yield self._wrong("wrong", f"{where} returned {len(piece.data)} bytes")
        if not (piece.data or piece.up_to_date):
            yield self._wrong("lost", f"{where} returned nothing")
        yield from self._check_piece(piece, where, _from(read.place))

    def _check_piece(self, piece: Piece, where: str, after: int | None) -> Iterator[Violation]:
        """Judge one message; `after` is where it should begin, if that is known."""
        where = f"{where}: {piece.offset} to {piece.next_offset}"
        if piece.next_offset != piece.offset + len(piece.data):
            yield self._wrong("wrong", f"{where} has {len(piece.data)} bytes")
        if after is not None and piece.offset < after:
            yield self._wrong("duplicated", f"{where} comes after {after}")
        if after is not None and piece.offset > after:
            if piece.truncated_before != piece.offset:
                yield self._wrong("lost", f"{where} comes after {after}, and nothing says why")
        elif piece.truncated_before and after is not None:
            yield self._wrong("wrong", f"{where} says that what is before it was dropped")
        if piece.truncated_before > self._begin:
            what = f"{where} says that what is before it was dropped, which is stored"
            yield self._wrong("lost", f"{what} from {self._begin} on")
        if piece.closed and (piece.next_offset != self._end or not piece.up_to_date):
            yield self._wrong("lost", f"{where} is the last, and the stream ends at {self._end}")

    def _check_watcher(self, watcher: OutputWatcher) -> Iterator[Violation]:
        for stream in watcher.streams:
            yield from self._check_stream(watcher.name, stream)
        ends = [stream.end for stream in watcher.streams]
        if ends and ends[-1] not in ("OK", "NOT_FOUND"):
            yield self._wrong("lost", f"{watcher.name} was not told of the end: {ends}")

    def _check_stream(self, name: str, stream: OutputStream) -> Iterator[Violation]:
        where = f"{name} after {stream.place}"
        after, closed = _from(stream.place), False
        for piece in stream.messages:
            if closed:
                yield self._wrong("wrong", f"{where}: {piece} comes after the end")
            yield from self._check_piece(piece, where, after)
            after, closed = piece.next_offset, piece.closed
        if stream.end == "OK" and not closed:
            yield self._wrong("lost", f"{where} ended without the last message")
        if stream.end == "NOT_FOUND" and not self.record.deleted:
            yield self._wrong("wrong", f"{where}: the job was not found, and is there")
        if stream.end not in ("OK", "NOT_FOUND", *EXPECTED_ENDS):
            yield self._wrong("wrong", f"{where} ended with {stream.end}")

    def _check_final(self) -> Iterator[Violation]:
        for before, read in pairwise(self.final):
            if read.piece.offset != before.piece.next_offset:
                yield self._wrong("lost", f"a gap in what is stored at {read.piece.offset}")
        if self.final and not self.final[-1].piece.closed:
            yield self._wrong("wrong", "the job has ended, and the stream is not closed")
        if self.record.job.refuses_output and self._begin:
            yield self._wrong("lost", f"{self._begin} bytes, although what is too much is refused")

    def _check_content(self, known: "_Known") -> Iterator[Violation]:
        """Judge what was read by what was asked for."""
        found: dict[int, list[int]] = defaultdict(list)  # offsets, by the number of the append
        keys = _Keys(self.appends)
        for begin, data in known.regions():
            at, leading = 0, begin > 0
            while at < len(data):
                rest = data[at : at + LEAST_BYTES]
                if len(rest) < LEAST_BYTES and (leading or keys.begin_with(rest)):
                    break  # too short to tell which append it is of
                number = keys.find(data, at)
                if number is None and leading:
                    at += 1  # it begins within a piece
                    continue
                if number is None:
                    what = f"{data[at : at + 40]!r} at {begin + at} was not appended as a whole"
                    yield self._wrong("wrong", what)
                    break
                leading = False
                found[number].append(begin + at)
                at += len(self.appends[number].data)
        order = sorted((at, number) for number, offsets in found.items() for at in offsets)
        for (at, one), (_, other) in pairwise(order):
            before, append = self.appends[one], self.appends[other]
            late = before.attempt > append.attempt
            if before.attempt == append.attempt and append.number:
                late = before.number >= append.number
            if late:
                what = f"{_named(before)} at {at} is before {_named(append)}"
                yield self._wrong("reordered", what)
        for number, append in enumerate(self.appends):
            yield from self._check_append(append, found[number], known)

    def _check_append(
        self, append: Append, offsets: Sequence[int], known: "_Known"
    ) -> Iterator[Violation]:
        where, size = _named(append), len(append.data)
        if len(offsets) > 1:
            yield self._wrong("duplicated", f"{where} is stored at {list(offsets)}")
        if append.outcome is Outcome.REFUSED:
            if offsets:
                yield self._wrong("wrong", f"{where} was refused, and is at {offsets[0]}")
            return
        for at in offsets:
            if wrong := known.other_attempt(at, at + size, append.attempt):
                yield self._wrong("wrong", f"{where} at {at} was read as of attempt {wrong}")
        if append.outcome is not Outcome.ACKNOWLEDGED:
            return
        if append.fenced:
            yield self._wrong("wrong", f"{where} was acknowledged after its attempt had ended")
        # A repetition is answered with the end of the stream.
        end = append.next_offset
        if any(later < end for later in append.repeated):
            what = f"{where} ends at {end}, and its repetitions at {append.repeated}"
            yield self._wrong("wrong", what)
        if offsets and offsets[0] + size > end:
            yield self._wrong("wrong", f"{where} at {offsets[0]} was said to end at {end}")
        if append.tries == 1 and offsets and offsets[0] + size != end:
            yield self._wrong("wrong", f"{where} at {offsets[0]} was said to end at {end}")
        if end > self._end:
            yield self._wrong("lost", f"{where} ends at {end}, and the stream at {self._end}")
        elif not offsets and end > self._begin and (append.tries == 1 or not self._begin):
            yield self._wrong("lost", f"{where}, which ended at {end}, is not stored")


class _Known:
    """The bytes of a stream that anybody read, and of which attempt they were said to be."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._read: list[tuple[int, int]] = []
        self._attempts: list[tuple[int, int, int]] = []
        self._is_known = bytearray()

    def add(self, piece: Piece) -> bool:
        """Take what a message has; return whether it agrees with the others."""
        begin, end = piece.offset, piece.offset + len(piece.data)
        if begin == end:
            return True
        if end > len(self._data):
            self._data.extend(bytes(end - len(self._data)))
            self._is_known.extend(bytes(end - len(self._is_known)))
        mask, data = self._is_known[begin:end], self._data[begin:end]
        agrees = data == piece.data
        if not agrees:
            agrees = all(
                not known or old == new
                for known, old, new in zip(mask, data, piece.data, strict=True)
            )
        if agrees:
            self._data[begin:end] = piece.data
            self._is_known[begin:end] = b"\1" * (end - begin)
            self._attempts.append((begin, end, piece.attempt))
        return agrees

    def regions(self) -> Iterator[tuple[int, bytes]]:
        """Yield what is known without a gap, with where it begins."""
        at = 0
        for known, group in groupby(self._is_known):
            end = at + sum(1 for _ in group)
            if known:
                yield at, bytes(self._data[at:end])
            at = end

    def other_attempt(self, begin: int, end: int, attempt: int) -> int | None:
        """Return another attempt that a part of it was said to be of, or None."""
        for first, last, told in self._attempts:
            if first < end and last > begin and told != attempt:
                return told
        return None


class _Keys:
    """Finds the appends of a stream by their first bytes."""

    def __init__(self, appends: Sequence[Append]) -> None:
        self._appends = appends
        self._numbers: dict[bytes, int] = {
            append.data[:LEAST_BYTES]: number for number, append in enumerate(appends)
        }

    def begin_with(self, data: bytes) -> bool:
        """Return whether any append begins with so few bytes."""
        return any(known.startswith(data) for known in self._numbers)

    def find(self, data: bytes, at: int) -> int | None:
        """Return the number of the append that is there, perhaps only with its beginning."""
        number = self._numbers.get(data[at : at + LEAST_BYTES])
        if number is None:
            return None
        whole = self._appends[number].data
        return number if data[at : at + len(whole)] == whole[: len(data) - at] else None


def _from(place: OutputPlace) -> int | None:
    """Return where a read begins, if that does not depend on where the stream ends."""
    return place.offset if place.last_bytes is None else None


def _named(append: Append) -> str:
    what = f"append {append.number} of attempt {append.attempt}"
    return f"{what} ({append.data[:LEAST_BYTES].decode()}, {append.tries} tries)"


def _check_versions(history: History) -> Iterator[Violation]:
    """Output is no change of its job: there are no more versions than others can have made."""
    asked: Counter[str] = Counter(
        operation.job_id
        for operation in history.operations
        if operation.rpc in MAKE_VERSIONS and operation.outcome is not Outcome.REFUSED
    )
    for job_id in dict.fromkeys(append.job_id for append in history.appends):
        record = history.records.get(job_id)
        if record is None:
            continue
        most = 2 + 2 * len(record.attempts) + asked[job_id]
        if record.job.version > most:
            what = f"{job_id} is at version {record.job.version}, and {most} changes were asked for"
            yield Violation("output", "wrong", what)


def _check_dropped(record: Record, most: int) -> Iterator[Violation]:
    """Output is dropped only where as much as may be stored is."""
    stored: Mapping[str, tuple[int, int]] = {
        name: (reads[0].piece.offset, reads[-1].piece.next_offset)
        for name, reads in record.outputs.items()
    }
    if not any(begin for begin, _ in stored.values()):
        return
    # A server may think of the other streams as they were. Many small pieces are too much, too.
    longest = max(end - begin for begin, end in stored.values())
    if longest < most_pieces(most) * LEAST_BYTES // len(stored):
        what = f"{record.job.job_id} has only {stored}, and {most} bytes may be stored"
        yield Violation("output", "lost", what)
