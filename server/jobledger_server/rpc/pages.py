"""Pages of lists: their tokens, and a limit on their bytes.

Clients take messages of 4 MiB, unless they are configured otherwise.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from jobledger_server.domain.job import Job, JobId, Payloads, is_id
from jobledger_server.domain.limits import DEFAULT_PAGE_SIZE, MAX_ANSWER_BYTES, MAX_PAGE_SIZE
from jobledger_server.rpc.tokens import read_token, token
from jobledger_server.rpc.validation import InvalidRequest
from jobledger_server.store import JobQuery, Store, StoredJob

ROWS_PER_STEP = 100
"""Rows converted to messages before the event loop can run something else."""

BYTES_PER_STEP = 256 * 1024
"""Bytes of messages made before it can."""

Row = TypeVar("Row")

Out = TypeVar("Out")


class PagedRequest(Protocol):
    """A request for a page."""

    @property
    def page_size(self) -> int: ...

    @property
    def page_token(self) -> str: ...


class Page(Generic[Row]):
    """One page of a list.

    Args:
        request: Its page size and page token.
        key: Identifies the query. A token is valid only for an equal key.
        fetch: Returns the rows after a cursor, and the cursor after those rows; None at the
            end of the list. It may return more rows than the limit: those are not part of
            the page.
        cursor: Returns the cursor after a row.

    Raises:
        InvalidRequest: The token is damaged or of another query.
    """

    def __init__(
        self,
        request: PagedRequest,
        key: object,
        fetch: Callable[[str | None, int], Awaitable[tuple[Sequence[Row], str | None]]],
        *,
        cursor: Callable[[Row], str],
    ) -> None:
        self._size = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        self._key = key
        self._fetch = fetch
        self._cursor = cursor
        given = request.page_token
        self._after = read_token("page_token", key, given) if given else None
        self.next_token = ""

    async def read(self, message: Callable[[Row], Out], size: Callable[[Out], int]) -> list[Out]:
        """Return the page's messages, and set `next_token` if more may follow.

        Args:
            message: Converts a row.
            size: Returns the bytes of a message.
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
            if len(page) % ROWS_PER_STEP == 0 or made > BYTES_PER_STEP:
                made = 0
                await asyncio.sleep(0)
        if len(page) < len(rows):
            rest = self._cursor(rows[len(page) - 1])
        if rest is not None:
            self.next_token = token(self._key, rest)
        return page


def job_page(
    request: PagedRequest,
    key: object,
    store: Store,
    query: JobQuery,
    payloads: Callable[[Sequence[Job]], Awaitable[Sequence[Payloads | None]]] | None = None,
) -> Page[StoredJob]:
    """Return a page of the jobs of a query, with their payloads if that reads these."""

    async def fetch(after: str | None, limit: int) -> tuple[Sequence[StoredJob], str | None]:
        before = JobId(id_from(after)) if after else None
        full = payloads is not None
        found = await store.list_jobs(query, before=before, limit=limit, full=full)
        if payloads is None:
            return [StoredJob(job) for job in found.jobs], found.next_before
        read = zip(found.jobs, await payloads(found.jobs), strict=True)
        rows = [StoredJob(job, payloads=each) for job, each in read if each is not None]
        return rows, found.next_before

    return Page(request, key, fetch, cursor=lambda row: row.job.id)


def message_bytes(message: Message) -> int:
    """Return the size of a message in bytes."""
    return message.ByteSize()


def id_from(cursor: str) -> str:
    """Return a cursor that is an id. Raises InvalidRequest."""
    # A token's digest is not secret, so its content can be anything.
    if not is_id(cursor):
        raise InvalidRequest([("page_token", "is damaged")], token=True)
    return cursor


def number_from(cursor: str | None) -> int:
    """Return a cursor that is a number, or 0 for None. Raises InvalidRequest."""
    if cursor is None:
        return 0
    if not re.fullmatch("[0-9]{1,18}", cursor):
        raise InvalidRequest([("page_token", "is damaged")], token=True)
    return int(cursor)
