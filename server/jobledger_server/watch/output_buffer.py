"""The newest output of one stream, for all of its watches here."""

from collections import deque
from collections.abc import Sequence

from jobledger_server.domain.output import OutputPiece

MAX_BYTES = 256 * 1024
"""Bytes that are kept of a stream, and one piece more. Who is further behind reads the table."""


class OutputBuffer:
    """The pieces of a stream from `first` to `end`, without a gap.

    Attributes:
        end: The end of the stream as far as it is known here; None until the table was read.
        final: The end of the stream once nothing can follow, else None.
        bytes: How many it holds.
    """

    def __init__(self) -> None:
        self.first = 0
        self.end: int | None = None
        self.final: int | None = None
        self.bytes = 0
        self._pieces: deque[OutputPiece] = deque()

    def begin(self, end: int) -> None:
        """Begin with a stream that ends there, and hold nothing of it."""
        self._pieces.clear()
        self.bytes = 0
        self.first = self.end = end

    def add(self, piece: OutputPiece) -> bool:
        """Add the next piece; return whether it is new. After a gap the buffer begins anew."""
        if self.end is None or piece.start > self.end:
            self.begin(piece.start)
        elif piece.start < self.end:
            return False
        self._pieces.append(piece)
        self.bytes += len(piece.data)
        self.end = piece.end
        while self.bytes - len(self._pieces[0].data) >= MAX_BYTES:
            self.drop()
        return True

    def drop(self) -> int:
        """Drop the oldest piece; return its bytes, or 0 if there is none."""
        if not self._pieces:
            return 0
        piece = self._pieces.popleft()
        self.bytes -= len(piece.data)
        self.first = piece.end
        return len(piece.data)

    def has(self, offset: int) -> bool:
        """Whether it has all that follows an offset, which is where a piece begins or ends."""
        return self.end is not None and self.first <= offset <= self.end

    def after(self, offset: int) -> Sequence[OutputPiece]:
        """Return the pieces that end after an offset."""
        found: deque[OutputPiece] = deque()
        for piece in reversed(self._pieces):
            if piece.end <= offset:
                break
            found.appendleft(piece)
        return found
