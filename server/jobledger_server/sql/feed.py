"""A page of the feed, read from the tables that together are the feed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from jobledger_server.sql.rows import (
    change_from_row,
    job_after_start,
    job_from_row,
    step_place,
    tombstone_from_row,
    transition_from_row,
)
from jobledger_server.sql.statements import Statements
from jobledger_server.store import Change, FeedHead, FeedPage

Steps = Sequence[Sequence[Any]]
"""Whole rows of `job_transitions`."""


class FeedReading:
    """Reads in one snapshot of the database; see `store.Store.changes_after`."""

    def __init__(
        self,
        connection: AsyncConnection,
        statements: Statements,
        *,
        limit: int,
        user_id: str | None,
    ) -> None:
        self._connection = connection
        self._statements = statements
        self._feed = statements.feed if user_id is None else statements.owned_feed
        self._limit = limit
        self._owner = {} if user_id is None else {"user_id": user_id}

    async def page(self, head: FeedHead, seq: int) -> FeedPage:
        """Return what comes after place `seq` of a feed that stands at `head`."""
        page = {"seq": seq, "count": self._limit, **self._owner}
        as_of = head.seq
        latest = [change_from_row(row, as_of) for row in await self._rows(self._feed.jobs, page)]
        gone = await self._rows(self._feed.deletions, page)
        latest += [tombstone_from_row(row, as_of) for row in gone]
        steps = await self._rows(self._feed.transitions, page)
        # Each of the three is whole up to the place where the first of them was cut, and that
        # is at or after the last place that is kept.
        places = {change.seq for change in latest} | {step_place(row) for row in steps}
        kept = sorted(places)[: self._limit]
        last = kept[-1] if len(kept) == self._limit else as_of
        taken = {step_place(row): row for row in steps if step_place(row) <= last}
        changes = [
            replace(change, transitions=(transition_from_row(taken.pop(change.seq)),))
            if change.seq in taken
            else change
            for change in latest
            if change.seq <= last
        ]
        changes += await self._starts(list(taken.values()), latest, as_of)
        return FeedPage(head, sorted(changes, key=lambda change: change.seq), last)

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
                step_place(row),
                (transition_from_row(row),),
                as_of=as_of,
            )
            for row in steps
        ]

    async def _rows(self, statement: Any, parameters: Mapping[str, Any]) -> Sequence[Any]:
        return (await self._connection.execute(statement, parameters)).all()
