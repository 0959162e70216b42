"""Output as server-sent events of the Durable Streams protocol."""

import base64
import json
import re
from typing import Any, Final

from jobledger.v1.job_service_pb2 import WatchOutputResponse
from jobledger_gateway.event_stream import COMMENT
from jobledger_gateway.output.query import OutputQuery, token_of

ENCODING_HEADER: Final = (b"stream-sse-data-encoding", b"base64")
_END_OF_LINE: Final = re.compile("\r\n|\r|\n")


class OutputEvents:
    """Makes events of the messages of one watch.

    A piece of output is an event `data`, and each is followed by an event `control`. Text is sent
    without what is not whole yet: the bytes of a character, and CR whose LF may come.

    Args:
        query: what was asked for.
        as_text: whether the events have text, or else base64.
    """

    def __init__(self, query: OutputQuery, *, as_text: bool) -> None:
        self._query = query
        self._as_text = as_text
        self._held = b""
        self._told: int | None = None

    def made(self, message: WatchOutputResponse) -> bytes:
        """Return the events of a message."""
        if not message.data and not message.closed and self._told == message.next_offset:
            return COMMENT
        self._told = message.next_offset if message.up_to_date else None
        data = self._data(message)
        offset = message.next_offset - len(self._held)
        control: dict[str, Any] = {"streamNextOffset": token_of(offset)}
        if message.closed:
            control |= {"upToDate": True, "streamClosed": True}
        else:
            control["streamCursor"] = self._query.next_cursor()
            if message.up_to_date:
                control["upToDate"] = True
        if message.attempt:
            control["attempt"] = message.attempt
        if message.truncated_before:
            control["truncatedBefore"] = token_of(message.truncated_before)
        said = json.dumps(control, separators=(",", ":"))
        return (_event("data", offset, data) if data else b"") + _event("control", offset, said)

    def _data(self, message: WatchOutputResponse) -> str:
        if not self._as_text:
            return base64.b64encode(message.data).decode()
        if message.truncated_before:
            self._held = b""
        data = self._held + message.data
        self._held = b"" if message.closed else _unfinished(data)
        whole = data[: len(data) - len(self._held)]
        return whole.decode("utf-8", "replace")


def _unfinished(data: bytes) -> bytes:
    """Return the bytes at the end that may go on: CR, or the first bytes of a character."""
    if data.endswith(b"\r"):
        return data[-1:]
    for length in range(1, min(3, len(data)) + 1):
        first = data[-length]
        if first >= 0xC0:  # noqa: PLR2004
            needed = 2 if first < 0xE0 else 3 if first < 0xF0 else 4  # noqa: PLR2004
            return data[-length:] if length < needed else b""
        if first < 0x80:  # noqa: PLR2004
            break
    return b""


def _event(name: str, offset: int, data: str) -> bytes:
    # A client removes one space at the beginning of a line.
    lines = (f" {line}" if line.startswith(" ") else line for line in _END_OF_LINE.split(data))
    said = "\n".join(f"data:{line}" for line in lines)
    return f"id: {token_of(offset)}\nevent: {name}\n{said}\n\n".encode()
