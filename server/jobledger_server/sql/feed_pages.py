"""Pages of the feed, read from the tables that together hold it."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection

from jobledger_server.domain.job import MEMORY_OVERHEAD_BYTES
from jobledger_server.sql.rows import (
    change_from_row,
    job_after_start,
    job_from_row,
    tombstone_from_row,
    transition_from_row,
    transition_seq,
)
from jobledger_server.sql.statements import Statements
from jobledger_server.store import Change, FeedHead, FeedPage

Rows = Sequence[Sequence[Any]]
"""Whole rows of a table."""

MAX_SCANNED_CHANGES = 2000
"""Sequence numbers that one page scans at most to find the changes of one owner."""

FEW_JOBS = 1000
"""Up to this number, the jobs of an owner are sorted for a page. That needs no scan of others'."""


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
    """Reads a page in one snapshot of the database; see `store.Store.changes_after`."""

    def __init__(
        self,
        connection: AsyncConnection,
        statements: Statements,
        *,
        limit: int,
        max_bytes: int,
        user_id: str | None,
    ) -> None:
        self._connection = connection
        self._statements = statements
        self._feed = statements.feed
        self._limit = limit
        self._max_bytes = max_bytes
        self._user_id = user_id

    async def page(self, head: FeedHead, seq: int) -> FeedPage:
        """Return the changes after `seq`. `head` was read in the same snapshot."""
        as_of = head.seq
        bounds: dict[str, Any] = {"seq": seq, "until": as_of, "count": self._limit}
        if self._user_id is not None:
            bounds["user_id"] = self._user_id
            if await self._has_few_jobs():
                self._feed = self._statements.few_feed
            else:
                self._feed = self._statements.owned_feed
                bounds["until"] = min(as_of, seq + MAX_SCANNED_CHANGES)
        rows = await self._rows(self._feed.jobs, {**bounds, "max_bytes": self._max_bytes})
        latest = [change_from_row(row, as_of) for row in rows]
        deletions = await self._rows(self._feed.deletions, bounds)
        latest += [tombstone_from_row(row, as_of) for row in deletions]
        transitions = await self._rows(self._feed.transitions, bounds)
        last = await self._last(latest, transitions, bounds["until"])
        by_seq = {transition_seq(row): row for row in transitions if transition_seq(row) <= last}
        changes = [
            replace(change, transitions=(transition_from_row(by_seq.pop(change.seq)),))
            if change.seq in by_seq
            else change
            for change in latest
            if change.seq <= last
        ]
        changes += await self._starts(list(by_seq.values()), latest, as_of)
        return FeedPage(head, sorted(changes, key=lambda change: change.seq), last)

    async def _has_few_jobs(self) -> bool:
        bounds = {"user_id": self._user_id, "count": FEW_JOBS + 1}
        ((count,),) = await self._rows(self._statements.count_jobs_of_owner, bounds)
        return bool(count <= FEW_JOBS)

    async def _last(self, latest: Sequence[Change], transitions: Rows, until: int) -> int:
        """Return the last sequence number of the page: `until`, unless a bound cuts it.

        A read that a bound cut is complete up to its last row, and its rows alone reach that bound.
        So the page, which counts the rows of all three reads, ends there at the latest.
        """
        sizes = {change.seq: change.job.memory_bytes for change in latest}
        contents = {change.job.id: change.job.memory_bytes for change in latest}
        starts = [
            (transition_seq(row), row[0]) for row in transitions if transition_seq(row) not in sizes
        ]
        if missing := [job_id for _, job_id in starts if job_id not in contents]:
            ids = self._statements.dialect.bind_list("ids", missing)
            rows = await self._rows(self._statements.job_sizes, ids)
            contents.update((id_, MEMORY_OVERHEAD_BYTES + size) for id_, size in rows)
        sizes.update((seq, contents[job_id]) for seq, job_id in starts)
        seqs = sorted(sizes)
        count, whole = fitting([sizes[seq] for seq in seqs], self._limit, self._max_bytes)
        return until if whole else seqs[count - 1]

    async def _starts(
        self, transitions: Rows, latest: Sequence[Change], as_of: int
    ) -> list[Change]:
        """Return the transitions of jobs that changed later, at their own sequence numbers.

        All of them are starts: a terminal state is a job's latest change.
        """
        jobs = {change.job.id: change.job for change in latest}
        if missing := [row[0] for row in transitions if row[0] not in jobs]:
            ids = self._statements.dialect.bind_list("ids", missing)
            rows = await self._rows(self._statements.read_more_jobs, ids)
            jobs.update((job.id, job) for job in map(job_from_row, rows))
        return [
            Change(
                job_after_start(jobs[row[0]], row),
                transition_seq(row),
                (transition_from_row(row),),
                as_of=as_of,
            )
            for row in transitions
        ]

    async def _rows(self, statement: Any, parameters: Mapping[str, Any]) -> Rows:
        return (await self._connection.execute(statement, parameters)).all()
