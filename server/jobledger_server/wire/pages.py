"""Pages: where each goes on, and a bound on a page's bytes."""

import re
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from jobledger_server.domain.limits import MAX_ANSWER_BYTES
from jobledger_server.wire.tokens import read_token, token
from jobledger_server.wire.validation import InvalidRequest

MAX_ROWS = 1000
DEFAULT_ROWS = 50

ROWS_AT_ONCE = 100
"""Rows read at once: bounds the memory that a page of huge rows takes."""

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
        given = request.page_token
        self._after = read_token("page_token", key, given) if given else None
        self.next_token = ""

    async def read(self, message: Callable[[Row], Out]) -> list[Out]:
        """Return the page's messages, and set `next_token` where more follow."""
        page: list[Out] = []
        room = MAX_ANSWER_BYTES
        after = self._after
        while True:
            # One row more than wanted tells whether any follow.
            limit = min(self._size - len(page) + 1, ROWS_AT_ONCE)
            rows = await self._fetch(after, limit)
            for row in rows:
                out = message(row)
                room -= out.ByteSize()
                if len(page) == self._size or (page and room < 0):
                    self.next_token = token(self._key, after or "")
                    return page
                page.append(out)
                after = self._cursor(row)
            if len(rows) < limit:
                return page


def number_from(cursor: str | None) -> int:
    """Read a cursor that is a number, 0 where there is none. Raises InvalidRequest."""
    if cursor is None:
        return 0
    # A token's digest is no secret: what is in it can be anything.
    if not re.fullmatch("[0-9]{1,18}", cursor):
        raise InvalidRequest([("page_token", "is damaged")], token=True)
    return int(cursor)
