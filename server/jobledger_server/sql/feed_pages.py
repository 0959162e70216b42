"""Pages of the feed: which changes, by their sizes, and then their jobs."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.ext.asyncio import AsyncConnection

from jobledger_server.domain.job import MEMORY_OVERHEAD_BYTES, JobId
from jobledger_server.sql.rows import (
    change_from_row,
    recorded_change,
    tombstone_from_row,
)
from jobledger_server.sql.statements import Statements, bind_ids
from jobledger_server.store import ActivePage, ActivePosition, Change, FeedHead, FeedPage

Rows = Sequence[Sequence[Any]]
"""Whole rows of a table."""


def fitting(sizes: Sequence[int], limit: int, max_bytes: int) -> tuple[int, bool]:
    """Return how many of the items fit into a page, and whether they are all that follow.

    Args:
        sizes: The sizes in bytes of the items that were read within the same bounds.
        limit: Items at most.
        max_bytes: Bytes at most, unless the first item alone is larger.
    """
    room = max_bytes
    for count, size in enumerate(sizes):
        room -= size
        if count and (count == limit or room < 0):
            return count, False
    return len(sizes), len(sizes) < limit and room > 0


class FeedPageReader:
    """Reads a page in one snapshot of the database; see `store.Store`."""

    def __init__(
        self,
        connection: AsyncConnection,
        statements: Statements,
        limit: int,
        max_bytes: int,
        user_id: str | None,
    ) -> None:
        self._connection = connection
        self._statements = statements
        self._limit = limit
        self._max_bytes = max_bytes
        self._user_id = user_id

    async def changes(self, head: FeedHead, seq: int) -> FeedPage:
        """Return the changes after `seq`. `head` was read in the same snapshot."""
        bounds: dict[str, Any] = {"seq": seq, "count": self._limit}
        if self._user_id is None:
            return await self._page(self._statements.feed.changes, bounds, head, head.seq)
        bounds["user_id"] = self._user_id
        return await self._page(self._statements.feed.owned_changes, bounds, head, head.seq)

    async def changes_until(self, head: FeedHead, seq: int, until: int) -> FeedPage:
        """Return the changes after `seq` up to `until`, and the jobs that were deleted later."""
        until = min(until, head.seq)
        bounds = {"seq": seq, "until": until, "count": self._limit}
        page = await self._page(self._statements.feed.changes_until, bounds, head, until)
        if head.seq - page.through > self._limit:
            return page
        later = {"seq": page.through, "until": head.seq}
        rows = await self._rows(self._statements.feed.deleted_jobs, later)
        return FeedPage(head, page.changes, page.through, frozenset(job_id for (job_id,) in rows))

    async def _page(
        self, statement: Executable, bounds: Mapping[str, Any], head: FeedHead, until: int
    ) -> FeedPage:
        """Return the changes that the statement finds; `until` is the last that it could."""
        seq: int = bounds["seq"]
        rows = await self._rows(statement, bounds)
        entries, all_entries = self._fitting(rows, [row[2] for row in rows])
        changes = await self._read(entries, seq, as_of=head.seq)
        fit, all_fit = self._fitting_jobs(changes)
        if not all_fit:
            return FeedPage(head, fit, fit[-1].seq)
        return FeedPage(head, fit, until if all_entries else entries[-1][0])

    async def active(self, after: ActivePosition, until: int) -> ActivePage:
        """Return the active jobs after a position whose latest changes are up to `until`."""
        bounds: dict[str, Any] = {"after_id": after.job_id, "count": self._limit}
        if self._user_id is None:
            bounds["after_user_id"] = after.user_id
            rows = await self._rows(self._statements.feed.active_jobs, bounds)
        else:
            bounds["user_id"] = self._user_id
            rows = await self._rows(self._statements.feed.owned_active_jobs, bounds)
        # A job that changed since is not read: the feed has it after `until`.
        sizes = [size if at <= until else 0 for _, _, at, size in rows]
        entries, all_entries = self._fitting(rows, sizes)
        ids = [job_id for _, job_id, at, _ in entries if at <= until]
        found = {row[0]: change_from_row(row) for row in await self._jobs(ids)}
        fit, all_fit = self._fitting_jobs([found[job_id] for job_id in ids])
        if not all_fit:
            return ActivePage(fit, ActivePosition(fit[-1].job.user_id, fit[-1].job.id))
        return ActivePage(fit, None if all_entries else ActivePosition(*entries[-1][:2]))

    def _fitting_jobs(self, changes: Sequence[Change]) -> tuple[Sequence[Change], bool]:
        """Return as many of the changes as fit by the memory that their jobs take."""
        sizes = [change.job.memory_bytes - MEMORY_OVERHEAD_BYTES for change in changes]
        return self._fitting(changes, sizes)

    def _fitting(self, items: Sequence[Any], sizes: Sequence[int]) -> tuple[Sequence[Any], bool]:
        """Return as many of the items as fit, and whether no more follow."""
        taken = [MEMORY_OVERHEAD_BYTES + size for size in sizes]
        count, whole = fitting(taken, self._limit, self._max_bytes)
        return items[:count], whole

    async def _read(self, entries: Rows, seq: int, *, as_of: int) -> list[Change]:
        """Return the changes of these rows of `changes`, the first ones after `seq`."""
        if not entries:
            return []
        ids = {job_id for _, job_id, _ in entries}
        found = {row[0]: row for row in await self._jobs(ids)}
        deletions: dict[int, Change] = {}
        if len(found) < len(ids):
            span = {"seq": seq, "until": entries[-1][0]}
            rows = await self._rows(self._statements.feed.deletions, span)
            deletions = {row[0]: tombstone_from_row(row, as_of) for row in rows}
        changes = []
        for at, job_id, _ in entries:
            if job_id in found:
                changes.append(recorded_change(found[job_id], at, as_of))
            elif at in deletions:
                changes.append(deletions[at])
        return changes

    async def _jobs(self, ids: Collection[JobId]) -> Rows:
        """Return the whole rows of these jobs."""
        if not ids:
            return ()
        bound = bind_ids(self._statements.dialect, "ids", ids)
        return await self._rows(self._statements.feed.jobs, bound)

    async def _rows(self, statement: Executable, parameters: Mapping[str, Any]) -> Rows:
        return (await self._connection.execute(statement, parameters)).all()
