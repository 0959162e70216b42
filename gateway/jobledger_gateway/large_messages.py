"""Messages of any size, to and from JSON: the large ones in threads, by turns of their callers.

Both take about two seconds of a processor for each megabyte at worst, and would hold up all event
streams.
"""

import json
from functools import lru_cache, partial
from typing import Any, Final, TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from starlette.requests import Request

from jobledger.v1.job_pb2 import JOB_VIEW_FULL, JobView
from jobledger_gateway.limits import SHARED_MESSAGES
from jobledger_gateway.requests import INLINE_BYTES, caller_of, from_body
from jobledger_gateway.turns import Turns

MessageT = TypeVar("MessageT", bound=Message)

INLINE_ANSWER_BYTES: Final = 16 * 1024
"""Bytes of a message that is written as JSON in the event loop at most: it takes 6 ms at worst."""

THREADS: Final = 2
"""Messages that are converted at once. A caller has one, so another one finds a thread free."""


class LargeMessages:
    """Converts messages from and to JSON."""

    def __init__(self) -> None:
        self._turns = Turns(THREADS)

    async def parsed(self, kind: type[MessageT], request: Request, body: bytes) -> MessageT:
        """Return the message of a request. Raises as `from_body` does."""
        read = partial(from_body, kind, request, body)
        if len(body) <= INLINE_BYTES:
            return read()
        return await self._turns.run(caller_of(request), read)

    async def encoded(self, request: Request, message: Message, view: JobView.ValueType) -> bytes:
        """Return a message for a request's caller in protobuf's JSON mapping, in one line."""
        # To write payloads, or to ask for their size, is nearly as dear as to read them.
        if view != JOB_VIEW_FULL:
            kind: Any = type(message)
            data = message.SerializeToString()
            if len(data) <= INLINE_ANSWER_BYTES:
                return _shared_json(kind, data)
        return await self._turns.run(caller_of(request), partial(json_of, message))

    async def read(self, request: Request, kind: type[MessageT], data: bytes) -> MessageT:
        """Return a message of the service's for a request's caller."""
        if len(data) <= INLINE_ANSWER_BYTES:
            return kind.FromString(data)
        return await self._turns.run(caller_of(request), partial(kind.FromString, data))

    async def translated(self, request: Request, kind: type[Message], data: bytes) -> bytes:
        """Return a message of the service's in JSON, as `encoded` does."""

        def translate() -> bytes:
            return json_of(kind.FromString(data))

        if len(data) <= INLINE_ANSWER_BYTES:
            return translate()
        return await self._turns.run(caller_of(request), translate)


@lru_cache(maxsize=SHARED_MESSAGES)
def _shared_json(kind: type[Message], data: bytes) -> bytes:
    """Return a message in JSON. Many streams are sent the same one within a short time."""
    return json_of(kind.FromString(data))


def json_of(message: Message) -> bytes:
    """Return a message in protobuf's JSON mapping, in one line."""
    fields = MessageToDict(message)
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
