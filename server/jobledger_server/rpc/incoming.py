"""Incoming requests: bytes that are parsed only once their caller is known.

Requests must neither block the event loop nor fill the memory. So the size is checked before
anything is parsed, large requests are parsed in a thread of their own, one at a time and
fairly queued between callers, and only the command stays in memory.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError, Message

from jobledger_server.admission.admission import Admission
from jobledger_server.admission.caller import Caller
from jobledger_server.admission.fair_queue import Turns
from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.limits import MAX_MESSAGE_BYTES
from jobledger_server.rpc.access.permissions import check_user
from jobledger_server.rpc.access.watch_tokens import narrow
from jobledger_server.rpc.call import Call
from jobledger_server.rpc.field_counts import (
    MAX_FIELDS,
    MAX_KEYS,
    has_too_many_fields,
    has_too_many_keys,
)
from jobledger_server.rpc.methods import OPERATIONS, Method
from jobledger_server.rpc.owner import owner_of
from jobledger_server.rpc.validation import Checker, InvalidRequest

Request = TypeVar("Request", bound=Message)
Result = TypeVar("Result")

INLINE_BYTES = 4 * 1024
"""Bytes of a request that is parsed in the event loop at most: it takes about a millisecond."""

HELD_BYTES = 256 * 1024 * 1024
"""Bytes of the requests and answers of running calls at most, of all callers together."""

UNREADABLE = (("request", "cannot be parsed: malformed, not UTF-8, or nested too deeply"),)


def parsed(message: type[Request], data: bytes, *, max_bytes: int) -> Request:
    """Parse a request of this type.

    Raises:
        LimitExceeded: It is larger than `max_bytes`.
        InvalidRequest: The bytes are not a valid message.
    """
    if len(data) > max_bytes:
        raise LimitExceeded("message_bytes", max_bytes, scope="request")
    size = len(data)
    if size > INLINE_BYTES:
        if has_too_many_fields(data, 0, size, message.DESCRIPTOR):
            raise InvalidRequest([("request", f"has more than {MAX_FIELDS} fields")])
        if has_too_many_keys(data, message.DESCRIPTOR):
            raise InvalidRequest([("request", f"has more than {MAX_KEYS} keys of maps")])
    try:
        return message.FromString(data)
    except DecodeError:
        raise InvalidRequest(UNREADABLE) from None


class RequestParser:
    """Parses requests, in a thread if they are large, and counts the bytes of running calls.

    Args:
        thread: Parses large requests.
        share: The part of all bytes that one caller may hold, from 0 to 1.
    """

    def __init__(self, thread: ThreadPoolExecutor, share: float) -> None:
        each = max(MAX_MESSAGE_BYTES, int(HELD_BYTES * share))
        self.held = Admission(
            "waiting_bytes", total=HELD_BYTES, each=each, quota=lambda quotas: quotas.waiting_bytes
        )
        """The bytes of the requests and answers of running calls."""
        self.turns = Turns(1)
        self._thread = thread

    async def run(
        self,
        caller: Caller,
        size: int,
        read: Callable[[], Result],
        admit: Callable[[], None] = lambda: None,
    ) -> Result:
        """Return the result of `read`, which runs in the thread unless the request is small.

        `admit` is called just before, and may raise: then the request is not parsed.
        """
        if size <= INLINE_BYTES:
            admit()
            return read()
        async with self.turns.turn(caller):
            admit()
            return await asyncio.get_running_loop().run_in_executor(self._thread, read)


@asynccontextmanager
async def request_parser(share: float) -> AsyncIterator[RequestParser]:
    """Open a parser, and wait at the end for the request that it parses."""
    with ThreadPoolExecutor(1, "requests") as thread:
        yield RequestParser(thread, share)


def authorised(caller: Caller, method: Method, request: Any, call: Call) -> Caller:
    """Return the caller of a parsed request, with the name that it gives itself.

    Raises AccessDenied for what it may not do.
    """
    permissions = caller.permissions
    if permissions.scope is not None:
        narrow(permissions.scope, request)
    check_user(permissions, method, request, call)
    if caller.identity:
        return caller
    if method.path.startswith(OPERATIONS):
        name = owner_of(Checker(), call.metadata)
    else:
        name = getattr(request, "user_id", "") or getattr(request, "worker_id", "")
    return Caller(caller.origin, name, caller.permissions)


@dataclass(slots=True)
class UnparsedRequest(Generic[Request]):
    """A request that is not parsed yet. It can be read once."""

    data: bytes
    method: Method
    parser: RequestParser

    async def read(
        self,
        call: Call,
        make: Callable[[Request], Result],
        admit: Callable[[Caller], None] = lambda _: None,
    ) -> Result:
        """Return what `make` converts the request to, for instance a command.

        `admit` is called just before the request is parsed, and may refuse that.

        Raises AccessDenied, InvalidRequest and LimitExceeded.
        """
        data, self.data = self.data, b""
        caller = call.caller

        def read() -> tuple[Caller, Result]:
            request: Any = parsed(self.method.request, data, max_bytes=MAX_MESSAGE_BYTES)
            return authorised(caller, self.method, request, call), make(request)

        call.caller, result = await self.parser.run(caller, len(data), read, partial(admit, caller))
        return result
