"""A piece of a job's output, as it is read."""

import codecs
from dataclasses import dataclass, field
from typing import Final, Self

from jobledger.v1.job_service_pb2 import ReadOutputResponse, WatchOutputResponse

MAX_PIECE: Final = 1024 * 1024
"""Bytes of one piece."""

_CONTINUES: Final = bytes(range(0x80, 0xC0))
_LONGEST_TAIL: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPiece:
    """A piece of one stream of a job's output, or a note about the stream. Then it has no data."""

    data: bytes = b""
    """The output, of one attempt. A character may be cut; see `text`."""
    offset: int
    """Where it begins: bytes from the beginning of the stream, over all attempts."""
    next_offset: int
    """Where the next piece begins. A watch goes on there with `after`."""
    attempt: int = 0
    """The attempt that wrote it. Where it changes, another attempt began. 0 without data."""
    truncated_before: int = 0
    """What came before this offset is not stored any more. Set where that was to be read, else 0.
    """
    up_to_date: bool = False
    """Whether this was all that was stored when it was read."""
    closed: bool = False
    """The job is terminal, and nothing follows."""
    heartbeat: bool = False
    """Whether there was no output for so long as the watch's `heartbeats` says."""
    silence: float = 0.0
    """With `heartbeat`: seconds since the service has sent anything. It sends at least its own
    heartbeats, by default every 15 s."""
    _before: bytes = field(default=b"", repr=False)
    """The beginning of a character whose end is in `data`."""
    _after: int = field(default=0, repr=False)
    """Of how many bytes at the end `data` a character is whose end is in the next piece."""

    @property
    def text(self) -> str:
        r"""The output as text, which is UTF-8. What is not is read as `\ufffd`.

        The pieces of a watch do not cut characters: one whose bytes are in two of them is in the
        second one's text. Of a single piece, as `read_output` returns it, a cut character is not
        readable.
        """
        whole = self._before + self.data
        if self.offset:
            # What it may begin with is the end of a character that began before.
            whole = whole[:_LONGEST_TAIL].lstrip(_CONTINUES) + whole[_LONGEST_TAIL:]
        return whole[: max(0, len(whole) - self._after)].decode("utf-8", "replace")

    @classmethod
    def from_proto(
        cls,
        message: WatchOutputResponse | ReadOutputResponse,
        *,
        before: bytes = b"",
        after: int = 0,
    ) -> Self:
        """Convert the message; see TextCuts for the other arguments."""
        return cls(
            data=message.data,
            offset=message.offset,
            next_offset=message.next_offset,
            attempt=message.attempt,
            truncated_before=message.truncated_before,
            up_to_date=message.up_to_date,
            closed=message.closed,
            _before=before,
            _after=after,
        )


class TextCuts:
    """Where the text of one piece ends and that of the next begins: between two characters."""

    def __init__(self) -> None:
        self._rest = b""
        self._attempt = 0

    def cut(self, message: WatchOutputResponse) -> tuple[bytes, int]:
        """Return the character's beginning that goes before a piece, and how much is left of it."""
        if message.truncated_before or (message.data and message.attempt != self._attempt):
            # The rest of that character never comes.
            self._rest = b""
        if message.data:
            self._attempt = message.attempt
        before = self._rest
        end = before + message.data[-_LONGEST_TAIL:] if message.data else before
        after = 0 if message.closed else _unfinished(end)
        self._rest = end[len(end) - after :]
        return before, after


def _unfinished(data: bytes) -> int:
    """Return how many bytes at the end are the beginning of a character of UTF-8."""
    tail = data[-_LONGEST_TAIL:]
    return len(tail) - codecs.utf_8_decode(tail, "replace")[1]
