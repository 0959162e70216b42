"""A page of the feed, read from the tables that together are the feed."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection

from jobledger_server.domain.job import OVERHEAD_BYTES
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

Steps = Sequence[Sequence[Any]]
"""Whole rows of `job_transitions`."""


SCAN = 2000
"""Sequence numbers that one page passes over at most to find the changes of one owner."""

FEW = 1000
"""Jobs of an owner that are sorted for a page, so that it need not pass over those of others."""


def fitting(sizes: Sequence[int], limit: int, max_bytes: int) -> tuple[int, bool]:
    """Return how many of what was read a page can take, and whether nothing can follow those.

    At least one; else at most `limit`, of `max_bytes` together.
    """
    room = max_bytes
    for count, size in enumerate(sizes):
        room -= size
        if count and (count == limit or room < 0):
            return count, False
    return len(sizes), len(sizes) < limit and room > 0


class FeedReading:
    """Reads in one snapshot of the database; see `store.Store.changes_after`."""

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
        """Return what comes after `seq` of a feed that stands at `head`."""
        as_of = head.seq
        page: dict[str, Any] = {"seq": seq, "until": as_of, "count": self._limit}
        if self._user_id is not None:
            page["user_id"] = self._user_id
            if await self._has_few():
                self._feed = self._statements.few_feed
            else:
                self._feed = self._statements.owned_feed
                page["until"] = min(as_of, seq + SCAN)
        rows = await self._rows(self._feed.jobs, {**page, "max_bytes": self._max_bytes})
        latest = [change_from_row(row, as_of) for row in rows]
        gone = await self._rows(self._feed.deletions, page)
        latest += [tombstone_from_row(row, as_of) for row in gone]
        steps = await self._rows(self._feed.transitions, page)
        last = await self._last(latest, steps, page["until"])
        taken = {transition_seq(row): row for row in steps if transition_seq(row) <= last}
        changes = [
            replace(change, transitions=(transition_from_row(taken.pop(change.seq)),))
            if change.seq in taken
            else change
            for change in latest
            if change.seq <= last
        ]
        changes += await self._starts(list(taken.values()), latest, as_of)
        return FeedPage(head, sorted(changes, key=lambda change: change.seq), last)

    async def _has_few(self) -> bool:
        counted = {"user_id": self._user_id, "count": FEW + 1}
        ((jobs,),) = await self._rows(self._statements.count_some, counted)
        return bool(jobs <= FEW)

    async def _last(self, latest: Sequence[Change], steps: Steps, until: int) -> int:
        """Return where the page ends: at `until`, or where one of its bounds cuts it.

        Each of the three parts is whole up to where the first of them was cut, and that is at
        or after the end of the page: no part was cut before its own rows reached a bound.
        """
        sizes = {change.seq: change.job.content_bytes for change in latest}
        contents = {change.job.id: change.job.content_bytes for change in latest}
        starts = [
            (transition_seq(row), row[0]) for row in steps if transition_seq(row) not in sizes
        ]
        if missing := [job_id for _, job_id in starts if job_id not in contents]:
            ids = self._statements.dialect.bind_list("ids", missing)
            rows = await self._rows(self._statements.job_sizes, ids)
            contents.update((id_, OVERHEAD_BYTES + size) for id_, size in rows)
        sizes.update((place, contents[job_id]) for place, job_id in starts)
        places = sorted(sizes)
        count, whole = fitting([sizes[place] for place in places], self._limit, self._max_bytes)
        return until if whole else places[count - 1]

    async def _starts(self, steps: Steps, latest: Sequence[Change], as_of: int) -> list[Change]:
        """Return the steps of jobs that went on, at their own places.

        Those are starts: a job's end is its latest change.
        """
        jobs = {change.job.id: change.job for change in latest}
        if missing := [row[0] for row in steps if row[0] not in jobs]:
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
            for row in steps
        ]

    async def _rows(self, statement: Any, parameters: Mapping[str, Any]) -> Sequence[Any]:
        return (await self._connection.execute(statement, parameters)).all()
