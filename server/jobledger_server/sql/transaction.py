"""One writing transaction: what a batch loads, and what it writes."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jobledger_server.domain.machine import Decision
from jobledger_server.domain.model import Asset, Instant, Job, JobId, JobStatus
from jobledger_server.sql.driver import Driver, Prepared
from jobledger_server.sql.memory import Mark, Memory
from jobledger_server.sql.rows import (
    Row,
    asset_from_row,
    asset_row,
    job_from_row,
    job_row,
    mutable_row,
    only_reported,
    report_row,
    tombstone_row,
    transition_row,
)
from jobledger_server.sql.statements import Statements
from jobledger_server.store import Change


class SqlTransaction:
    """A writing transaction; see `store.Transaction`."""

    def __init__(
        self, driver: Driver, statements: Statements, memory: Memory, now: Instant
    ) -> None:
        self._driver = driver
        self._statements = statements
        self._dialect = statements.dialect
        self._memory = memory
        self._now = now
        self._loaded: dict[JobId, Job] = {}
        self._written: list[Change] = []
        self._mark: Mark | None = None

    @property
    def now(self) -> Instant:
        return self._now

    async def load_jobs(self, ids: Collection[JobId]) -> dict[JobId, Job]:
        known = self._memory.recall(ids)
        if len(known) == len(set(ids)):
            marks = {job_id: mark for job_id, (_, mark) in known.items()}
            same = await self._driver.unchanged(marks)
            self._loaded.update((job_id, known[job_id][0]) for job_id in same)
            missing = [job_id for job_id in known if job_id not in self._loaded]
        else:
            # All in one statement, so that all are locked in the order of their ids.
            missing = list(ids)
        if missing:
            wanted = self._dialect.bind_list("ids", missing)
            rows = await self._fetch(self._statements.lock_jobs, wanted)
            self._loaded.update((job.id, job) for job in map(job_from_row, rows))
        return dict(self._loaded)

    async def find_created(
        self, requests: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], Job]:
        wanted = self._dialect.bind_pairs("requests", requests)
        rows = await self._fetch(self._statements.find_created, wanted)
        return {(job.user_id, job.request_id): job for job in map(job_from_row, rows)}

    async def find_linked(
        self, requests: Collection[tuple[JobId, str]]
    ) -> dict[tuple[JobId, str], Asset]:
        wanted = self._dialect.bind_pairs("requests", requests)
        rows = await self._fetch(self._statements.find_linked, wanted)
        return {(asset.job_id, asset.request_id): asset for asset in map(asset_from_row, rows)}

    async def find_waiting(self, job_types: Collection[str], *, limit: int) -> list[Job]:
        statement = self._statements.oldest_waiting(len(job_types))
        wanted = {**self._dialect.bind_types(job_types), "count": limit}
        found = [job_from_row(row) for row in await self._fetch(statement, wanted)]
        self._loaded.update((job.id, job) for job in found)
        return found

    async def append(self, decisions: Sequence[Decision]) -> list[Change]:
        place, writer = await self._take_places(len(decisions))
        changes = _placed(decisions, after=place)
        writes = _Writes(decisions, changes, self._loaded)
        # Deletions first: they give back the request ids that a creation may take.
        if writes.deletes:
            gone = self._dialect.bind_list("ids", writes.deletes)
            await self._fetch(self._statements.delete_jobs, gone)
        statements = self._statements
        together = (
            (statements.insert_tombstones, writes.tombstones),
            (statements.insert_jobs, writes.inserts),
            (statements.update_jobs, writes.updates),
            (statements.report_jobs, writes.reports),
            (statements.insert_transitions, writes.transitions),
            (statements.insert_assets, writes.assets),
        )
        if due := [(writing, rows) for writing, rows in together if rows]:
            await self._driver.write(due)
        self._written, self._mark = changes, self._driver.mark(writer)
        return changes

    def committed(self) -> None:
        """Remember the running jobs that were written: it is what their rows hold now."""
        if self._mark is None:
            return
        for change in self._written:
            if change.job.status is JobStatus.PROCESSING:
                self._memory.remember(change.job, self._mark)
            else:
                self._memory.forget(change.job.id)

    async def _take_places(self, count: int) -> tuple[int, int]:
        """Lock the counter, move it on by `count`, and return where it stood and the writer."""
        ((last, writer),) = await self._fetch(self._statements.take_places, {"count": count})
        return last - count, writer

    async def _fetch(
        self, statement: Prepared, parameters: Mapping[str, Any]
    ) -> Sequence[Sequence[Any]]:
        return await self._driver.fetch(statement.text, statement.values(parameters))


def _placed(decisions: Sequence[Decision], *, after: int) -> list[Change]:
    changes = []
    for seq, decision in enumerate(decisions, start=after + 1):
        transitions = (decision.transition,) if decision.transition else ()
        changes.append(Change(decision.job, seq, transitions, decision.deleted))
    return changes


class _Writes:
    """The rows of a batch.

    A job that several decisions changed is written once, as the last left it;
    its transitions are written each.
    """

    def __init__(
        self,
        decisions: Sequence[Decision],
        changes: Sequence[Change],
        loaded: Mapping[JobId, Job],
    ) -> None:
        final = {change.job.id: change for change in changes}
        created = {change.job.id for change in changes if change.job.version == 1}
        gone = {job_id for job_id, change in final.items() if change.deleted}
        self.deletes = gone
        self.tombstones = [tombstone_row(final[id_].job, final[id_].seq) for id_ in gone]
        kept = [change for job_id, change in final.items() if job_id not in gone]
        self.inserts = [job_row(c.job, c.seq) for c in kept if c.job.id in created]
        self.updates: list[Row] = []
        self.reports: list[Row] = []
        for job, seq in ((c.job, c.seq) for c in kept if c.job.id not in created):
            before = loaded.get(job.id)
            if before is not None and only_reported(before, job):
                self.reports.append((job.id, *report_row(job, seq)))
            else:
                self.updates.append((job.id, *mutable_row(job, seq)))
        self.transitions = [
            transition_row(step, change.job, change.seq)
            for change in changes
            if change.job.id not in gone
            for step in change.transitions
        ]
        self.assets = [
            asset_row(asset)
            for decision in decisions
            if decision.job.id not in gone
            for asset in decision.assets
        ]
