"""Output: what a job writes, in streams of bytes beside its changes.

Of a stream only its newest piece is read to append to it. It says where the stream ends and whose
append was the last one, so it is never dropped.
"""

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from jobledger_server.domain.job import JobId
from jobledger_server.domain.limits import MAX_OUTPUT_DATA_BYTES

DEFAULT_CONTENT_TYPE = "text/plain; charset=utf-8"

SLACK = 8
"""Output is dropped once it is this part more than what is kept: each time is a deletion."""


LEAST_PIECE_BYTES = 128
"""As many pieces are stored of a job as if each had so many bytes: small ones take much more."""


class OutputTail(Struct, frozen=True, gc=False):
    """The end of a stream, with what is known of its beginning.

    Attributes:
        end: Where the next piece begins: bytes from the beginning of the stream, over all attempts.
        attempt: The attempt that appended last; 0 if none has.
        number: The greatest number of its appends.
        first: Where the stored output begins, or at most one piece later.
        pieces: In how many pieces it is stored, at most.
    """

    end: int = 0
    attempt: int = 0
    number: int = 0
    first: int = 0
    pieces: int = 0

    @property
    def stored(self) -> int:
        """About how many bytes are stored."""
        return self.end - self.first


EMPTY = OutputTail()

Tails = Mapping[str, OutputTail]
"""Those of a job's streams, by their names."""

NO_TAILS: Tails = {}


class OutputPiece(Struct, frozen=True, gc=False):
    """Output of one attempt, as it is stored and sent.

    `number` is that of the last append in it.
    """

    job_id: JobId
    stream: str
    start: int
    attempt: int
    number: int
    data: bytes

    @property
    def end(self) -> int:
        """Where the next piece begins."""
        return self.start + len(self.data)


class OutputCut(Struct, frozen=True, gc=False):
    """What is dropped of a stream, but for the newest piece.

    Those are the pieces that end before an offset, and all but so many of the newest ones.
    """

    job_id: JobId
    stream: str
    before: int
    kept_pieces: int


def has_room(tails: Tails, more: int, most: int) -> bool:
    """Return whether a piece of so many bytes fits in what is stored of a job's output."""
    size = sum(tail.stored for tail in tails.values())
    pieces = sum(tail.pieces for tail in tails.values())
    return size + more <= most and pieces < most_pieces(most)


def most_pieces(most: int) -> int:
    """Return in how many pieces that many bytes of a job's output are stored at most."""
    return most // LEAST_PIECE_BYTES


def after_append(tails: Tails, piece: OutputPiece) -> Tails:
    """Return the tails after a piece was appended to its stream."""
    tail = tails.get(piece.stream, EMPTY)
    after = OutputTail(piece.end, piece.attempt, piece.number, tail.first, tail.pieces + 1)
    return {**tails, piece.stream: after}


def cuts(job_id: JobId, tails: Tails, most: int) -> Iterator[OutputCut]:
    """Yield what to drop so that about `most` bytes of a job's output are stored.

    Each stream keeps as many bytes as every other one, or all that it has if these are fewer; and
    likewise of the pieces. So a long log leaves a short result alone.
    """
    sizes = _kept({name: tail.stored for name, tail in tails.items()}, most)
    pieces = _kept({name: tail.pieces for name, tail in tails.items()}, most_pieces(most))
    for name, tail in tails.items():
        if sizes[name] < tail.stored or pieces[name] < tail.pieces:
            yield OutputCut(job_id, name, tail.end - sizes[name], pieces[name])


def _kept(counts: Mapping[str, int], most: int) -> Mapping[str, int]:
    """Return how many each one keeps, so that there are `most` in all."""
    if sum(counts.values()) <= most + most // SLACK:
        return counts
    kept = {}
    left, others = most, len(counts)
    for name, count in sorted(counts.items(), key=lambda item: item[1]):
        kept[name] = min(count, left // others)
        left -= kept[name]
        others -= 1
    return kept


def after_cut(tails: Tails, cut: OutputCut) -> Tails:
    """Return the tails after something was dropped."""
    tail = tails[cut.stream]
    first, pieces = max(tail.first, cut.before), min(tail.pieces, cut.kept_pieces)
    after = OutputTail(tail.end, tail.attempt, tail.number, first, pieces)
    return {**tails, cut.stream: after}


def merged(pieces: Sequence[OutputPiece]) -> list[OutputPiece]:
    """Join neighbouring pieces of the same stream and attempt, up to MAX_OUTPUT_DATA_BYTES."""
    parts: dict[tuple[JobId, str], list[list[OutputPiece]]] = {}
    for piece in pieces:
        groups = parts.setdefault((piece.job_id, piece.stream), [])
        last = groups[-1] if groups else []
        fits = (
            last
            and last[0].attempt == piece.attempt
            and piece.end - last[0].start <= MAX_OUTPUT_DATA_BYTES
        )
        if fits:
            last.append(piece)
        else:
            groups.append([piece])
    return [_joined(group) for groups in parts.values() for group in groups]


def _joined(pieces: Sequence[OutputPiece]) -> OutputPiece:
    first, last = pieces[0], pieces[-1]
    if first is last:
        return first
    data = b"".join(piece.data for piece in pieces)
    return OutputPiece(first.job_id, first.stream, first.start, first.attempt, last.number, data)
