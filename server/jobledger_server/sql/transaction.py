"""A transaction that writes: what a batch loads, and what it writes."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jobledger_server.domain.job import Asset, Instant, Job, JobId, JobStatus
from jobledger_server.domain.state_machine import Decision
from jobledger_server.sql.driver import Deletion, Driver, Prepared, Writes
from jobledger_server.sql.job_cache import JobCache, WriteId
from jobledger_server.sql.rows import (
    Row,
    asset_from_row,
    asset_row,
    job_from_row,
    job_rows,
    mutable_rows,
    only_reported,
    report_rows,
    tombstone_row,
    transition_row,
)
from jobledger_server.sql.statements import Statements, bind_owned
from jobledger_server.store import Change, Claimable, Owned


class SqlTransaction:
    """See `store.Transaction`."""

    def __init__(
        self, driver: Driver, statements: Statements, cache: JobCache, now: Instant
    ) -> None:
        self._driver = driver
        self._statements = statements
        self._dialect = statements.dialect
        self._cache = cache
        self._now = now
        self._loaded: dict[JobId, Job] = {}
        self._written: list[Change] = []
        self._write_id: WriteId | None = None

    @property
    def now(self) -> Instant:
        return self._now

    async def load_jobs(
        self, ids: Collection[JobId], owned: Collection[Owned] = ()
    ) -> dict[JobId, Job]:
        requested = {*ids, *(job_id for job_id, _ in owned)}
        known = self._cache.find(requested)
        if owned:
            # Another owner's job is queried for like one that does not exist.
            really_owned = {job_id for job_id, user_id in owned if _owner(known, job_id) == user_id}
            known = {
                job_id: known[job_id] for job_id in known if job_id in really_owned or job_id in ids
            }
        if len(known) == len(requested):
            write_ids = {job_id: write_id for job_id, (_, write_id) in known.items()}
            same = await self._driver.unchanged(write_ids)
            self._loaded.update((job_id, known[job_id][0]) for job_id in same)
            missing = requested - self._loaded.keys()
        else:
            # All in one statement, so that all are locked in the order of their ids.
            missing = requested
        if missing and not owned:
            await self._load(self._statements.lock_jobs, missing)
        elif missing:
            of_any_owner = [job_id for job_id in ids if job_id in missing]
            pairs = [pair for pair in owned if pair[0] in missing]
            bound = bind_owned(self._dialect, of_any_owner, pairs)
            self._add(await self._fetch(self._statements.lock_owned_jobs, bound))
        return dict(self._loaded)

    async def load_unlocked_jobs(self, ids: Collection[JobId]) -> dict[JobId, Job]:
        await self._load(self._statements.lock_unlocked_jobs, ids)
        return dict(self._loaded)

    async def _load(self, statement: Prepared, ids: Collection[JobId]) -> None:
        self._add(await self._fetch(statement, self._dialect.bind_list("ids", ids)))

    def _add(self, rows: Sequence[Sequence[Any]]) -> None:
        self._loaded.update((job.id, job) for job in map(job_from_row, rows))

    async def find_created(
        self, requests: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], Job]:
        parameters = self._dialect.bind_pairs("requests", requests)
        rows = await self._fetch(self._statements.find_created, parameters)
        return {(job.user_id, job.request_id): job for job in map(job_from_row, rows)}

    async def find_linked(
        self, requests: Collection[tuple[JobId, str]]
    ) -> dict[tuple[JobId, str], Asset]:
        parameters = self._dialect.bind_pairs("requests", requests)
        rows = await self._fetch(self._statements.find_linked, parameters)
        return {(asset.job_id, asset.request_id): asset for asset in map(asset_from_row, rows)}

    async def find_claimable(self, limits: Mapping[str, int], *, limit: int) -> list[Claimable]:
        statement, values = self._dialect.find_claimable(limits, limit, lock=True)
        return [Claimable(*row) for row in await self._driver.fetch(statement, values)]

    async def append(self, decisions: Sequence[Decision], *, last: bool = False) -> list[Change]:
        batch = _Batch(decisions, self._loaded)
        deletion = self._deletion(batch.deleted) if batch.deleted else None

        def writes(after: int) -> Writes:
            return batch.writes(self._statements, after=after)

        count = len(decisions)
        seq, write_id = await self._driver.append(
            count, writes, deletion=deletion, new=len(batch.created), last=last
        )
        self._write_id = write_id
        self._written = _changes(decisions, after=seq - count)
        return self._written

    def committed(self) -> None:
        """Cache the running jobs that were written, as their rows hold them now."""
        if self._write_id is None:
            return
        for change in self._written:
            if change.job.status is JobStatus.PROCESSING:
                self._cache.put(change.job, self._write_id)
            else:
                self._cache.discard(change.job.id)

    def _deletion(self, ids: Collection[JobId]) -> Deletion:
        statement = self._statements.delete_jobs
        return statement.text, statement.values(self._dialect.bind_list("ids", ids))

    async def _fetch(
        self, statement: Prepared, parameters: Mapping[str, Any]
    ) -> Sequence[Sequence[Any]]:
        return await self._driver.fetch(statement.text, statement.values(parameters))


def _owner(known: Mapping[JobId, tuple[Job, WriteId]], job_id: JobId) -> str | None:
    return known[job_id][0].user_id if job_id in known else None


def _changes(decisions: Sequence[Decision], *, after: int) -> list[Change]:
    changes = []
    for seq, decision in enumerate(decisions, start=after + 1):
        transitions = (decision.transition,) if decision.transition else ()
        changes.append(Change(decision.job, seq, transitions, decision.deleted))
    return changes


class _Batch:
    """The rows that a number of decisions write.

    A job that several decisions changed is written once, as the last one left it. Each
    transition is written.
    """

    def __init__(self, decisions: Sequence[Decision], loaded: Mapping[JobId, Job]) -> None:
        self._decisions = decisions
        self._loaded = loaded
        final = {decision.job.id: decision for decision in decisions}
        new = {decision.job.id for decision in decisions if decision.job.version == 1}
        self.deleted = {job_id for job_id, decision in final.items() if decision.deleted}
        self.created = new - self.deleted

    def writes(self, statements: Statements, *, after: int) -> Writes:
        """Return the statements with their rows, at the sequence numbers after this one."""
        numbered = list(enumerate(self._decisions, start=after + 1))
        final = {decision.job.id: (decision.job, seq) for seq, decision in numbered}
        inserts: list[Row] = []
        updates: list[Row] = []
        reports: list[Row] = []
        for job_id, (job, seq) in final.items():
            if job_id in self.deleted:
                continue
            before = self._loaded.get(job_id)
            if job_id in self.created:
                inserts.append(job_rows.row(job, seq))
            elif before is not None and only_reported(before, job):
                reports.append((job_id, *report_rows.row(job, seq)))
            else:
                updates.append((job_id, *mutable_rows.row(job, seq)))
        kept = [(seq, d) for seq, d in numbered if d.job.id not in self.deleted]
        all_writes = (
            (statements.insert_tombstones, [tombstone_row(*final[id_]) for id_ in self.deleted]),
            (statements.insert_jobs, inserts),
            (statements.update_jobs, updates),
            (statements.report_jobs, reports),
            (
                statements.insert_transitions,
                [transition_row(d.transition, d.job, seq) for seq, d in kept if d.transition],
            ),
            (
                statements.insert_assets,
                [asset_row(asset) for _, decision in kept for asset in decision.assets],
            ),
        )
        return [(writing, rows) for writing, rows in all_writes if rows]
