"""Requests as they come in: bytes first, and a message only once the caller may call.

What a caller sends must neither hold the event loop nor fill the memory. So the size
is checked before anything is parsed, large requests are read in a thread of their
own, one at a time and by turns between callers, and of a request that was read
nothing stays but the command.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from google.protobuf.message import DecodeError

from jobledger_server.admission.admission import Admission
from jobledger_server.admission.caller import CALLER, Caller
from jobledger_server.admission.fair_queue import Turns
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.limits import MAX_MESSAGE_BYTES
from jobledger_server.rpc.validation import InvalidRequest

Request = TypeVar("Request")
Result = TypeVar("Result")

MAX_FIELDS = 4096
"""The most fields of a request, each entry of a list counted: the largest list has 1,000."""

INLINE_BYTES = 4 * 1024
"""The most bytes of a request that is read in the event loop: it takes about a millisecond."""

HELD_BYTES = 256 * 1024 * 1024
"""Bytes of requests and answers whose calls are under way, of all callers together."""

UNREADABLE = (("request", "cannot be parsed: malformed, not UTF-8, or nested too deeply"),)


def parsed(parse: Callable[[bytes], Request], data: bytes, *, max_bytes: int) -> Request:
    """Parse a request that is not larger than it may be.

    Raises:
        LimitExceeded: It is larger.
        InvalidRequest: The bytes are not such a message.
    """
    if len(data) > max_bytes:
        raise LimitExceeded("bytes in a message", max_bytes, scope="request")
    if len(data) > INLINE_BYTES and _has_too_many_fields(data):
        raise InvalidRequest([("request", f"has more than {MAX_FIELDS} fields")])
    try:
        return parse(data)
    except DecodeError:
        raise InvalidRequest(UNREADABLE) from None


class Intake:
    """Where requests are read; keep it open for as long as there are any.

    Args:
        share: The part of all bytes that one caller may have under way.
    """

    def __init__(self, share: float) -> None:
        each = max(MAX_MESSAGE_BYTES, int(HELD_BYTES * share))
        self.held = Admission("bytes of requests and answers", total=HELD_BYTES, each=each)
        self._turns = Turns(1)
        self._thread = ThreadPoolExecutor(1, "requests")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.shutdown(wait=True)

    async def run(self, size: int, read: Callable[[], Result]) -> Result:
        """Return what `read` does: at once where the request is small, else in the thread."""
        if size <= INLINE_BYTES:
            return read()
        async with self._turns.turn():
            return await asyncio.get_running_loop().run_in_executor(self._thread, read)


@dataclass(slots=True)
class Incoming(Generic[Request]):
    """A request that nobody has parsed yet. It is read once.

    `admit` takes the parsed request: it sees that the caller may ask for this, and
    returns the caller's name for itself.
    """

    data: bytes
    origin: str
    parse: Callable[[bytes], Request]
    admit: Callable[[Request], str]
    intake: Intake

    async def read(self, make: Callable[[Request], Result]) -> Result:
        """Return what `make` makes of the request, for instance a command.

        Raises AccessDenied, InvalidRequest and LimitExceeded.
        """
        data, self.data = self.data, b""

        def read() -> tuple[str, Result]:
            request = parsed(self.parse, data, max_bytes=MAX_MESSAGE_BYTES)
            return self.admit(request), make(request)

        name, result = await self.intake.run(len(data), read)
        CALLER.set(Caller(self.origin, name))
        return result


def _has_too_many_fields(data: bytes) -> bool:
    """Count the outermost fields of a message, to the first that is too many.

    A million empty assets are 2 MB, and a hundred when they are parsed. Of what is
    malformed the parser will say so.
    """
    position, end = 0, len(data)
    for _ in range(MAX_FIELDS):
        if position >= end:
            return False
        tag, position = _varint(data, position)
        match tag & 7:
            case 0:
                _, position = _varint(data, position)
            case 1:
                position += 8
            case 2:
                length, position = _varint(data, position)
                position += length
            case 5:
                position += 4
            case _:
                return False
    return position < end


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number that begins here, and where it ends."""
    number = shift = 0
    for byte in data[position : position + 10]:
        number |= (byte & 0x7F) << shift
        shift += 7
        position += 1
        if byte < 0x80:  # noqa: PLR2004
            break
    return number, position
