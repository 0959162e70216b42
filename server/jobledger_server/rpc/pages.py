"""Pages: where each goes on, and a bound on a page's bytes."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from jobledger_server.domain.limits import DEFAULT_PAGE_SIZE, MAX_ANSWER_BYTES
from jobledger_server.rpc.tokens import read_token, token
from jobledger_server.rpc.validation import InvalidRequest

ROWS_AT_ONCE = 100
"""Rows that are made into messages before the event loop does something else."""

BYTES_AT_ONCE = 256 * 1024
"""Bytes of messages that are made before it does something else."""

Row = TypeVar("Row")

Out = TypeVar("Out")


class PagedRequest(Protocol):
    """A request for a page."""

    @property
    def page_size(self) -> int: ...

    @property
    def page_token(self) -> str: ...


class Page(Generic[Row]):
    """One page of the rows that `fetch(cursor, limit)` gives, in their order.

    With the rows it returns the cursor at which the list goes on after them, None at its
    end; where it returns more rows than the limit, it goes on before those. `key` names
    the query; a token is good only for an equal one. Raises InvalidRequest for a token
    that is damaged or of another query.
    """

    def __init__(
        self,
        request: PagedRequest,
        key: object,
        fetch: Callable[[str | None, int], Awaitable[tuple[Sequence[Row], str | None]]],
        *,
        cursor: Callable[[Row], str],
    ) -> None:
        self._size = request.page_size or DEFAULT_PAGE_SIZE
        self._key = key
        self._fetch = fetch
        self._cursor = cursor
        given = request.page_token
        self._after = read_token("page_token", key, given) if given else None
        self.next_token = ""

    async def read(self, message: Callable[[Row], Out], size: Callable[[Out], int]) -> list[Out]:
        """Return the page's messages, and set `next_token` where more may follow.

        `size` says how many bytes a message takes.
        """
        page: list[Out] = []
        room = MAX_ANSWER_BYTES
        made = 0
        rows, rest = await self._fetch(self._after, self._size)
        for row in rows[: self._size]:
            out = message(row)
            taken = size(out)
            room -= taken
            if page and room < 0:
                break
            page.append(out)
            made += taken
            if len(page) % ROWS_AT_ONCE == 0 or made > BYTES_AT_ONCE:
                made = 0
                await asyncio.sleep(0)
        if len(page) < len(rows):
            rest = self._cursor(rows[len(page) - 1])
        if rest is not None:
            self.next_token = token(self._key, rest)
        return page


def message_bytes(message: Message) -> int:
    """Return how many bytes a message takes."""
    return message.ByteSize()


def number_from(cursor: str | None) -> int:
    """Read a cursor that is a number, 0 where there is none. Raises InvalidRequest."""
    if cursor is None:
        return 0
    # A token's digest is no secret: what is in it can be anything.
    if not re.fullmatch("[0-9]{1,18}", cursor):
        raise InvalidRequest([("page_token", "is damaged")], token=True)
    return int(cursor)
