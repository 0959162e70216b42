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


async def page(
    request: PagedRequest,
    key: object,
    fetch: Callable[[str, int], Awaitable[tuple[Sequence[Row], str | None]]],
    message: Callable[[Row], Out],
    *,
    cursor: Callable[[Row], str],
) -> tuple[list[Out], str]:
    """Return the messages of one page of a list, and the token of the next, if more may follow.

    Args:
        request: Its page size and page token.
        key: Identifies the query. A token is valid only for an equal key.
        fetch: Returns the rows after a cursor, which is empty for the first page, and the cursor
            after those rows; None at the end of the list. It may return more rows than the limit:
            those are not part of the page.
        message: Converts a row.
        cursor: Returns the cursor after a row.

    Raises:
        InvalidRequest: The token is damaged or of another query.
    """
    limit = min(request.page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    given = request.page_token
    rows, rest = await fetch(read_token("page_token", key, given) if given else "", limit)
    made: list[Out] = []
    room = MAX_ANSWER_BYTES
    unyielded = 0
    for row in rows[:limit]:
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
    return made, "" if rest is None else token(key, rest)


async def job_page(
    request: PagedRequest,
    key: object,
    store: Store,
    query: JobQuery,
    message: Callable[[StoredJob], Out],
    *,
    payloads: Callable[[Sequence[Job]], Awaitable[Sequence[Payloads | None]]] | None = None,
) -> tuple[list[Out], str]:
    """Return a page of the jobs of a query, with their payloads if that reads these. See `page`."""

    async def fetch(after: str, limit: int) -> tuple[Sequence[StoredJob], str | None]:
        before = JobId(id_from(after)) or None
        full = payloads is not None
        found = await store.list_jobs(query, before=before, limit=limit, full=full)
        if payloads is None:
            return [StoredJob(job) for job in found.jobs], found.next_before
        read = zip(found.jobs, await payloads(found.jobs), strict=True)
        rows = [StoredJob(job, payloads=each) for job, each in read if each is not None]
        return rows, found.next_before

    return await page(request, key, fetch, message, cursor=lambda row: row.job.id)


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
