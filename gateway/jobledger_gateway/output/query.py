"""What a request for output asks for."""

import random
import re
import time
from dataclasses import dataclass
from typing import Final

from starlette.requests import Request

from jobledger.v1.job_service_pb2 import ReadOutputRequest, WatchOutputRequest
from jobledger_gateway.problems import invalid_field

LONG_POLL: Final = "long-poll"
EVENTS: Final = "sse"

BEGINNING: Final = "-1"
NOW: Final = "now"

_NUMBER: Final = re.compile("[0-9]{1,18}")

CURSOR_EPOCH: Final = 1_728_432_000
"""2024-10-09, in seconds since 1970: since then the protocol counts its cursors."""

CURSOR_SECONDS: Final = 20
CURSOR_JITTER: Final = range(1, 3600 // CURSOR_SECONDS + 1)


@dataclass(frozen=True, slots=True)
class OutputQuery:
    """A place in a stream of a job's output, and how it is read.

    Attributes:
        job_id: the job.
        user_id: its owner.
        stream: the name of the stream.
        live: how to wait for more: LONG_POLL, EVENTS, or empty to read what is there.
        offset: where to begin; None for the beginning, or if `last_bytes` says it.
        last_bytes: how far before the end to begin; None if `offset` says it.
        is_file: whether all that is stored is asked for, as a file.
        cursor: the number that the client has from its last answer.
        as_base64: whether events shall have the bytes, though they are text.
    """

    job_id: str
    user_id: str
    stream: str
    live: str
    offset: int | None
    last_bytes: int | None
    is_file: bool
    cursor: int | None
    as_base64: bool

    def to_read(self, max_bytes: int) -> ReadOutputRequest:
        """Return the request for the piece there."""
        request = ReadOutputRequest(
            job_id=self.job_id, user_id=self.user_id, stream=self.stream, max_bytes=max_bytes
        )
        if self.last_bytes is not None:
            request.last_bytes = self.last_bytes
        else:
            request.offset = self.offset or 0
        return request

    def to_watch(self) -> WatchOutputRequest:
        """Return the request for what is there and what follows."""
        request = WatchOutputRequest(job_id=self.job_id, user_id=self.user_id, stream=self.stream)
        if self.last_bytes is not None:
            request.last_bytes = self.last_bytes
        else:
            request.after_offset = self.offset or 0
        return request

    def next_cursor(self) -> str:
        """Return a cursor that is greater than the client's: no cache has its next request."""
        now = int(time.time() - CURSOR_EPOCH) // CURSOR_SECONDS
        if self.cursor is not None and self.cursor >= now:
            return str(self.cursor + random.choice(CURSOR_JITTER))  # noqa: S311
        return str(now)


def token_of(offset: int) -> str:
    """Return an offset as the protocol wants it: its tokens sort as the offsets do."""
    return f"{offset:016d}"


def output_query(request: Request) -> OutputQuery:
    """Read a request. The protocol wants parameters that are unknown to be ignored.

    Raises:
        InvalidField: a parameter has no such value, is missing, or given twice.
    """
    live = _one(request, "live") or ""
    if live not in {"", LONG_POLL, EVENTS}:
        raise invalid_field("live", f"must be {LONG_POLL} or {EVENTS}")
    offset = request.headers.get("last-event-id") if live == EVENTS else None
    offset = offset or _one(request, "offset")
    last_bytes = _one(request, "last_bytes", "lastBytes")
    if offset is not None and last_bytes is not None:
        raise invalid_field("last_bytes", "not together with offset")
    if live and offset is last_bytes is None:
        raise invalid_field("offset", f"is required for live={live}")
    encoding = _one(request, "encoding")
    if encoding not in {None, "base64"}:
        raise invalid_field("encoding", "must be base64")
    cursor = _one(request, "cursor")
    return OutputQuery(
        job_id=request.path_params["job_id"],
        user_id=_one(request, "user_id", "userId") or "",
        stream=request.path_params.get("stream", ""),
        live=live,
        offset=None if offset in {None, BEGINNING, NOW} else _number("offset", offset),
        last_bytes=0 if offset == NOW else _number("last_bytes", last_bytes),
        is_file=not live and offset is last_bytes is None,
        cursor=int(cursor) if cursor and _NUMBER.fullmatch(cursor) else None,
        as_base64=encoding is not None,
    )


def _one(request: Request, *names: str) -> str | None:
    values = [each for name in names for each in request.query_params.getlist(name)]
    if len(values) > 1:
        raise invalid_field(names[0], "is given twice")
    return values[0] if values else None


def _number(field: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        what = "an offset of this stream" if field == "offset" else "a number of bytes"
        raise invalid_field(field, f"must be {what}")
    return int(text)
