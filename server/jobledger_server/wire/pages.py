"""Pages: opaque tokens, good only for their own query, and a bound on a page's bytes."""

import base64
import binascii
import hashlib
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from jobledger_server.wire.validation import InvalidRequest

MAX_ROWS = 1000
DEFAULT_ROWS = 50

MAX_BYTES = 3 * 1024 * 1024
"""A page is cut here, so that it passes the 4 MiB which gRPC clients take by default."""

ROWS_AT_ONCE = 100
"""Rows read at once: bounds the memory that a page of huge rows takes."""

_DIGEST_BYTES = 8

Row = TypeVar("Row")

Out = TypeVar("Out", bound=Message)


class PagedRequest(Protocol):
    """A request for a page."""

    @property
    def page_size(self) -> int: ...

    @property
    def page_token(self) -> str: ...


class Page(Generic[Row]):
    """One page of the rows that `fetch(cursor, limit)` gives, in their order.

    `key` names the query; a token is good only for an equal one. Raises
    InvalidRequest for a token that is damaged or of another query.
    """

    def __init__(
        self,
        request: PagedRequest,
        key: object,
        fetch: Callable[[str | None, int], Awaitable[list[Row]]],
        *,
        cursor: Callable[[Row], str],
    ) -> None:
        self._size = request.page_size or DEFAULT_ROWS
        self._key = key
        self._fetch = fetch
        self._cursor = cursor
        self._after = _read_token(key, request.page_token)
        self.next_token = ""

    async def read(self, message: Callable[[Row], Out]) -> list[Out]:
        """Return the page's messages, and set `next_token` where more follow."""
        page: list[Out] = []
        room = MAX_BYTES
        after = self._after
        while True:
            # One row more than wanted tells whether any follow.
            limit = min(self._size - len(page) + 1, ROWS_AT_ONCE)
            rows = await self._fetch(after, limit)
            for row in rows:
                out = message(row)
                room -= out.ByteSize()
                if len(page) == self._size or (page and room < 0):
                    self.next_token = _token(self._key, after or "")
                    return page
                page.append(out)
                after = self._cursor(row)
            if len(rows) < limit:
                return page


def _token(key: object, cursor: str) -> str:
    return base64.urlsafe_b64encode(_digest(key, cursor) + cursor.encode()).decode()


def _read_token(key: object, token: str) -> str | None:
    if not token:
        return None
    try:
        data = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        cursor = data[_DIGEST_BYTES:].decode()
    except (binascii.Error, UnicodeError):
        raise _invalid("is damaged") from None
    if data[:_DIGEST_BYTES] != _digest(key, cursor):
        raise _invalid("is damaged, or was given for another query")
    return cursor


def _digest(key: object, cursor: str) -> bytes:
    return hashlib.blake2b(f"{key!r}\n{cursor}".encode(), digest_size=_DIGEST_BYTES).digest()


def _invalid(description: str) -> InvalidRequest:
    return InvalidRequest([("page_token", description)], token=True)
