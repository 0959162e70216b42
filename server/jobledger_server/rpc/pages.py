"""Pages of lists: their tokens, and a limit on their bytes.

Clients take messages of 4 MiB, unless they are configured otherwise.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar

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

Out = TypeVar("Out", bound=bytes | Message)


class PagedRequest(Protocol):
    """A request for a page."""

    page_size: int
    page_token: str


class Page:
    """One page of a list.

    Args:
        request: Its page size and page token.
        key: Identifies the query. A token is valid only for an equal key.

    Attributes:
        after: The cursor after which it begins; empty for the first page.
        limit: How many rows it has at most.

    Raises:
        InvalidRequest: The token is damaged or of another query.
    """

    def __init__(self, request: PagedRequest, key: object) -> None:
        given = request.page_token
        self.after = read_token("page_token", key, given) if given else ""
        self.limit = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
        self._key = key

    async def messages(
        self,
        rows: Sequence[Row],
        message: Callable[[Row], Out],
        *,
        cursor: Callable[[Row], str],
        rest: str | None = None,
    ) -> tuple[list[Out], str]:
        """Return the page's messages, and the token of the next page if more may follow.

        Args:
            rows: The rows from the page's cursor on. Those over its limit are not part of it.
            message: Converts a row.
            cursor: Returns the cursor after a row.
            rest: The cursor after all of the rows; None at the end of the list.
        """
        made: list[Out] = []
        room = MAX_ANSWER_BYTES
        unyielded = 0
        for row in rows[: self.limit]:
            out = message(row)
            size = len(out) if isinstance(out, bytes) else out.ByteSize()
            room -= size
            if made and room < 0:
                break
            made.append(out)
            unyielded += size
            if len(made) % ROWS_PER_STEP == 0 or unyielded > BYTES_PER_STEP:
                unyielded = 0
                await asyncio.sleep(0)
        if len(made) < len(rows):
            rest = cursor(rows[len(made) - 1])
        return made, "" if rest is None else token(self._key, rest)


async def job_page(
    page: Page,
    store: Store,
    query: JobQuery,
    message: Callable[[StoredJob], Out],
    *,
    payloads: Callable[[Sequence[Job]], Awaitable[Sequence[Payloads | None]]] | None = None,
) -> tuple[list[Out], str]:
    """Return a page of the jobs of a query, with their payloads if that reads these."""
    before, full = JobId(id_from(page.after)) or None, payloads is not None
    found = await store.list_jobs(query, before=before, limit=page.limit, full=full)
    if payloads is None:
        rows = [StoredJob(job) for job in found.jobs]
    else:
        read = zip(found.jobs, await payloads(found.jobs), strict=True)
        rows = [StoredJob(job, payloads=each) for job, each in read if each is not None]
    return await page.messages(rows, message, cursor=lambda row: row.job.id, rest=found.next_before)


async def paced(rows: Iterable[Row]) -> AsyncIterator[Row]:
    """Yield rows, and let the event loop run something else after each ROWS_PER_STEP."""
    for count, row in enumerate(rows, 1):
        yield row
        if count % ROWS_PER_STEP == 0:
            await asyncio.sleep(0)


def id_from(cursor: str) -> str:
    """Return a cursor that is an id or empty. Raises InvalidRequest."""
    # A token's digest is not secret, so its content can be anything.
    if cursor and not is_id(cursor):
        raise InvalidRequest([("page_token", "is damaged")], token=True)
    return cursor


def number_from(cursor: str) -> int:
    """Return a cursor that is a number, or 0 if it is empty. Raises InvalidRequest."""
    if not re.fullmatch("[0-9]{0,18}", cursor):
        raise InvalidRequest([("page_token", "is damaged")], token=True)
    return int(cursor or 0)
