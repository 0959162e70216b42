"""A transaction that writes; see `store.Transaction`."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from jobledger_server.domain.decisions import Created
from jobledger_server.domain.job import Asset, Instant, Job, JobId, Payloads, Phase
from jobledger_server.domain.output import OutputCut, Tails, merged
from jobledger_server.domain.queues import EndedReasons, KeyState, QueueName, Tally, queue_name
from jobledger_server.domain.state_machine import Decision
from jobledger_server.store import BlockedType, Change, Claimable, Outdated, StoredJob
from jobledger_world.memory import outputs
from jobledger_world.memory.batch import Batch
from jobledger_world.memory.counting import count
from jobledger_world.memory.link import Database
from jobledger_world.memory.locks import FEED, Session
from jobledger_world.memory.rows import (
    Group,
    Row,
    requested,
    rerun_of,
    unique,
    with_key,
)
from jobledger_world.memory.tables import Tables
from jobledger_world.memory.waiting import (
    claimable,
    due_jobs,
    key_state,
    oldest_ready,
    overdue_jobs,
)

Key = TypeVar("Key")


class MemoryTransaction:
    """See `store.Transaction`."""

    def __init__(self, database: Database, session: Session, reasons: EndedReasons) -> None:
        self._database, self._session, self._reasons = database, session, reasons
        self._tables = database.tables
        self._time: Instant | None = None
        self._loaded: dict[JobId, Change] = {}
        self._vtimes: dict[QueueName, int] = {}
        self._writes: list[Callable[[], None]] = []
        self._batch: Batch | None = None
        self._committed = False

    async def now(self) -> Instant:
        if self._time is None:
            async with self._database.statement(self._session):
                self._time = self._database.clock()
        return self._time

    async def load_jobs(
        self,
        ids: Collection[JobId],
        *,
        look: bool = True,  # noqa: ARG002 - it always does
    ) -> dict[JobId, Job]:
        async with self._database.statement(self._session):
            for job_id in sorted(set(ids)):
                if self._tables.kept(job_id) is not None:
                    await self._database.locks.acquire(job_id, self._session)
                    self._load(job_id)
        return {job_id: change.job for job_id, change in self._loaded.items()}

    def _load(self, job_id: JobId) -> Row | None:
        """Return a job that is locked now, as it is now: another one may have deleted it."""
        row = self._tables.kept(job_id)
        if row is not None:
            self._loaded[job_id] = Change(row.job, row.seq)
        return row

    async def load_claimed(self, ids: Collection[JobId]) -> dict[JobId, StoredJob]:
        claimed: dict[JobId, StoredJob] = {}
        async with self._database.statement(self._session):
            for job_id in sorted(set(ids)):
                row = self._tables.kept(job_id)
                if row is None or not self._take(job_id):
                    continue
                self._load(job_id)
                name = queue_name(row.job)
                queue = self._tables.queues.get(name)
                self._vtimes[name] = 0 if queue is None else queue.vtime
                payloads = Payloads(row.payloads.parameters, row.payloads.checkpoint)
                claimed[job_id] = StoredJob(row.job, payloads=payloads)
            if claimed and self._time is None:
                self._time = self._database.clock()
        return claimed

    def _take(self, name: str) -> bool:
        return self._database.locks.take(name, self._session)

    async def find_created(
        self, requests: Collection[tuple[str, str]]
    ) -> dict[tuple[str, str], Created]:
        rows = await self._found({pair: requested(*pair) for pair in requests if pair[1]})
        return {pair: (row.job, row.payloads.parameters) for pair, row in rows.items()}

    async def find_reruns(self, origins: Collection[JobId]) -> dict[JobId, Job]:
        rows = await self._found({origin: rerun_of(origin) for origin in origins})
        return {origin: row.job for origin, row in rows.items()}

    async def find_active(
        self, keys: Collection[tuple[str, str, str]]
    ) -> dict[tuple[str, str, str], Job]:
        rows = await self._found({key: unique(*key) for key in keys})
        return {key: row.job for key, row in rows.items()}

    async def _found(self, groups: Mapping[Key, Group]) -> dict[Key, Row]:
        """Return the one job of each of these groups that has one."""
        async with self._database.statement(self._session):
            return {
                key: self._tables.rows[job_id]
                for key, group in groups.items()
                for job_id in self._tables.members(group)
            }

    async def load_outputs(self, jobs: Collection[Job]) -> dict[JobId, Tails]:
        async with self._database.statement(self._session):
            return {job.id: outputs.tails_of(self._tables, job) for job in jobs}

    async def find_linked(
        self, requests: Collection[tuple[JobId, str]]
    ) -> dict[tuple[JobId, str], Asset]:
        return await self._assets(requests, lambda asset: asset.request_id)

    async def find_named(
        self, names: Collection[tuple[JobId, str]]
    ) -> dict[tuple[JobId, str], Asset]:
        return await self._assets(names, lambda asset: asset.link.name)

    async def _assets(
        self, wanted: Collection[tuple[JobId, str]], name_of: Callable[[Asset], str]
    ) -> dict[tuple[JobId, str], Asset]:
        async with self._database.statement(self._session):
            rows = {job_id: self._tables.rows.get(job_id) for job_id, _ in wanted}
            return {
                (job_id, name): asset
                for job_id, name in wanted
                if name and (row := rows[job_id]) is not None
                for asset in row.assets.values()
                if name_of(asset) == name
            }

    async def find_ready(self, planned: Sequence[Claimable]) -> list[Claimable]:
        queues = [job.queue for job in planned]
        async with self._database.statement(self._session):
            now = self._database.clock()
            found: dict[QueueName, list[Row]] = {}
            for queue, wanted in Counter(queues).items():
                ready = oldest_ready(self._tables, queue, now)
                free = (row for row in ready if self._take(row.job.id))
                found[queue] = list(islice(free, wanted))
            rows = [found[queue].pop(0) for queue in queues if found[queue]]
        return [claimable(row) for row in rows]

    async def lock_keys(self, keys: Collection[str]) -> dict[str, KeyState]:
        async with self._database.statement(self._session):
            await self._database.locks.acquire(FEED, self._session)
            if keys and self._time is None:
                self._time = self._database.clock()
            return {key: key_state(self._tables, key) for key in keys}

    async def lock_groups(self, ids: Collection[JobId]) -> dict[JobId, Job]:
        async with self._database.statement(self._session):
            await self._database.locks.acquire(FEED, self._session)
            free = [job_id for job_id in sorted(set(ids)) if self._take(job_id)]
            rows = {job_id: self._load(job_id) for job_id in free}
        return {job_id: row.job for job_id, row in rows.items() if row is not None}

    async def find_blocked_types(self, key: str, *, ready: int) -> list[BlockedType]:
        async with self._database.statement(self._session):
            blocked = self._types(with_key(key, Phase.BLOCKED))
            waiting = self._types(with_key(key, Phase.READY))
        found = (BlockedType(name, waiting[name]) for name in sorted(blocked))
        return [each for each in found if each.ready < ready]

    def _types(self, group: Group) -> Counter[str]:
        """Count the jobs of a group by their types, with what this transaction has written."""
        if self._batch is None:
            return Counter(row.job.job_type for row in self._tables.in_group(group))
        members = map(self._batch.row, self._batch.members(group))
        return Counter(row.job.job_type for row in members)

    async def find_blocked(self, key: str, job_type: str, *, limit: int) -> list[Job]:
        found: list[Job] = []
        async with self._database.statement(self._session):
            rows = self._tables.in_group(with_key(key, Phase.BLOCKED))
            jobs = [row.job for row in rows if row.job.job_type == job_type]
            for job in sorted(jobs, key=lambda job: (-job.priority, job.create_time, job.id)):
                if len(found) < limit and self._take(job.id):
                    self._load(job.id)
                    found.append(job)
        return found

    async def find_due(self, *, limit: int) -> list[Job]:
        return await self._find_first(due_jobs, limit)

    async def find_overdue(self, *, limit: int) -> dict[JobId, Job]:
        return {job.id: job for job in await self._find_first(overdue_jobs, limit)}

    async def _find_first(
        self, find: Callable[[Tables, Instant], Sequence[JobId]], limit: int
    ) -> list[Job]:
        """Lock jobs whose time has come."""
        async with self._database.statement(self._session):
            now = self._database.clock()
            free = filter(self._take, find(self._tables, now))
            found = [row.job for id_ in islice(free, limit) if (row := self._load(id_)) is not None]
            if found and self._time is None:
                self._time = now
        return found

    async def clear_recheck(self, key: str, *, unblocked: bool) -> None:
        def clear() -> None:
            counts = self._tables.keys.get(key)
            if counts is not None and not (unblocked and counts.blocked):
                counts.recheck = False

        async with self._database.statement(self._session):
            await self._database.locks.acquire(FEED, self._session)
        self._writes.append(clear)

    async def append(
        self,
        decisions: Sequence[Decision],
        *,
        config_version: int | None = None,
        settled: Collection[str] = (),
        cuts: Sequence[OutputCut] = (),
        last: bool = False,
    ) -> list[Change]:
        pieces = merged([each.output for each in decisions if each.output is not None])
        decisions = [each for each in decisions if each.changed or each.renewed]
        now = await self.now()
        tally = Tally(self._vtimes, self._reasons)
        jobs = {job_id: change.job for job_id, change in self._loaded.items()}
        for decision in decisions:
            tally.add(jobs.get(decision.job.id), decision.job)
            jobs[decision.job.id] = decision.job
        async with self._database.statement(self._session):
            # What only renews leases neither takes sequence numbers nor changes counters.
            if tally.queues or any(decision.changed for decision in decisions):
                await self._database.locks.acquire(FEED, self._session)
                if config_version not in (None, self._tables.config_version):
                    raise Outdated
            batch = Batch(self._tables, decisions, self._loaded, now)
            outputs.check(self._tables, pieces)
        deleted = {each.job.id for each in decisions if each.deleted}

        def write() -> None:
            count(self._tables, tally, settled)
            self._tables.put(batch.rows)
            outputs.write(self._tables, pieces, cuts, deleted)

        self._batch = batch
        self._writes.append(write)
        if last:
            await self.commit()
        return batch.changes

    async def commit(self) -> None:
        """Make durable what was written. Idempotent."""
        if not self._committed:
            self._committed = True
            await self._database.commit(self._session, self._write)

    def _write(self) -> None:
        for write in self._writes:
            write()
