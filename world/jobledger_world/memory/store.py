"""The store: jobs, their feed, and what is found among them. See `store.Store`."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

from jobledger_server.domain.job import Asset, AssetId, Attempt, Instant, JobId, Micros, Phase
from jobledger_server.domain.queues import EndedReasons
from jobledger_server.domain.retention import Purgeable, purgeable
from jobledger_server.store import (
    ActivePage,
    ActivePosition,
    Claimable,
    Config,
    FeedHead,
    FeedPage,
    JobPage,
    JobQuery,
    News,
    StoredJob,
)
from jobledger_server.tuning import Tuning
from jobledger_world.memory import feed, lists
from jobledger_world.memory.link import Database
from jobledger_world.memory.outputs import MemoryOutputs
from jobledger_world.memory.queue_reports import MemoryQueueReports
from jobledger_world.memory.queue_settings import MemoryQueueSettings
from jobledger_world.memory.rows import active_of, held_by
from jobledger_world.memory.sweeps import MemorySweeps
from jobledger_world.memory.transaction import MemoryTransaction
from jobledger_world.memory.waiting import due_jobs, go_next, overdue_jobs
from jobledger_world.memory.webhooks import MemoryWebhooks


class MemoryStore:
    """The store of one server; see `store.Store`. Those of several servers share their tables."""

    def __init__(self, database: Database, tuning: Tuning = Tuning()) -> None:
        self._tuning = tuning
        self._database, self.tables = database, database.tables
        self._reasons = EndedReasons()
        self.queue_settings = MemoryQueueSettings(database)
        self.queue_reports = MemoryQueueReports(database)
        self.webhooks = MemoryWebhooks(database)
        self.outputs = MemoryOutputs(database)
        self.sweeps = MemorySweeps(database)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[MemoryTransaction]:
        async with self._database.session() as session:
            transaction = MemoryTransaction(self._database, session, self._reasons)
            yield transaction
            await transaction.commit()

    async def read_jobs(self, ids: Collection[JobId], *, full: bool) -> dict[JobId, StoredJob]:
        return await self._database.read(lambda: lists.stored(self.tables, ids, full=full))

    async def list_attempts(self, job_id: JobId, *, after: int, limit: int) -> list[Attempt]:
        return await self._database.read(
            lambda: lists.attempts(self.tables, job_id, after=after, limit=limit)
        )

    async def list_jobs(
        self, query: JobQuery, *, before: JobId | None, limit: int, full: bool = False
    ) -> JobPage:
        return await self._database.read(
            lambda: lists.page(self.tables, query, before=before, limit=limit, full=full)
        )

    async def list_assets(self, job_id: JobId, *, after: AssetId | None, limit: int) -> list[Asset]:
        return await self._database.read(
            lambda: lists.assets(self.tables, job_id, after=after, limit=limit)
        )

    async def read_assets(self, ids: Collection[JobId]) -> dict[JobId, Sequence[Asset]]:
        return await self._database.read(lambda: lists.all_assets(self.tables, ids))

    async def find_claimable(self, limits: Mapping[str, int], *, limit: int) -> list[Claimable]:
        return await self._database.read(
            lambda: go_next(self.tables, limits, self._database.clock(), limit=limit)
        )

    async def config(self) -> Config:
        tables = self.tables
        return await self._database.read(
            lambda: Config(
                tables.config_version, frozenset(tables.paused_types), dict(tables.defaults)
            )
        )

    async def news(self, job_types: Collection[str]) -> News:
        def read() -> News:
            ready = dict.fromkeys(sorted(job_types), 0)
            for (job_type, _), level in self.tables.levels.items():
                if job_type in ready:
                    ready[job_type] += level.phases[Phase.READY]
            now = self._database.clock()
            return News(
                now,
                self.tables.head,
                self.tables.config_version,
                overdue=bool(overdue_jobs(self.tables, now)),
                due=bool(due_jobs(self.tables, now)),
                recheck=any(key.recheck for key in self.tables.keys.values()),
                ready={job_type: count for job_type, count in ready.items() if count},
            )

        return await self._database.read(read)

    async def find_rechecks(self, *, after: str, limit: int) -> list[str]:
        def read() -> list[str]:
            keys = self.tables.keys.items()
            return sorted(name for name, key in keys if key.recheck and name > after)

        return (await self._database.read(read))[:limit]

    async def record_pollers(
        self, server: str, job_types: Collection[str], *, lasts: Micros
    ) -> None:
        def write() -> None:
            until = Instant(self._database.clock() + lasts)
            self.tables.pollers.update(((name, server), until) for name in sorted(job_types))

        await self._database.write(write, lock=False)

    async def find_held(
        self, worker_id: str, job_types: Collection[str], *, limit: int
    ) -> list[tuple[JobId, int]]:
        def read() -> list[tuple[JobId, int]]:
            jobs = [row.job for row in self.tables.in_group(held_by(worker_id))]
            held = sorted((job.id, job.attempt) for job in jobs if job.job_type in job_types)
            return held[:limit]

        return await self._database.read(read)

    async def count_active(self, user_id: str, *, limit: int) -> int:
        return await self._database.read(
            lambda: min(limit, len(self.tables.members(active_of(user_id))))
        )

    async def find_purgeable(self, age: Micros, *, after: int, limit: int) -> Purgeable:
        def read() -> Purgeable:
            scanned = self._tuning.scanned_ends
            return purgeable(
                feed.ends(self.tables, after, scanned=scanned),
                after=after,
                now=self._database.clock(),
                age=age,
                limit=limit,
                scanned=scanned,
            )

        return await self._database.read(read)

    async def find_outlived(self, *, limit: int) -> list[JobId]:
        return await self._database.read(
            lambda: feed.outlived(self.tables, self._database.clock(), limit=limit)
        )

    async def feed_head(self) -> FeedHead:
        return await self._database.read(lambda: self.tables.head)

    async def verify_identity(self) -> FeedHead:
        def verify() -> FeedHead:
            self.tables.verify_identity()
            return self.tables.head

        return await self._database.write(verify)

    async def changes_after(
        self, seq: int, *, limit: int, user_id: str | None = None, until: int | None = None
    ) -> FeedPage:
        return await self._database.read(
            lambda: feed.page(self.tables, seq, limit=limit, user_id=user_id, until=until)
        )

    async def active_jobs(
        self,
        after: ActivePosition,
        *,
        until: int,
        limit: int,
        user_id: str | None = None,
        ids: Collection[JobId] = (),
    ) -> ActivePage:
        return await self._database.read(
            lambda: feed.active(
                self.tables, after, until=until, limit=limit, user_id=user_id, ids=ids
            )
        )

    async def compact_deletions(self, age: Micros, *, limit: int) -> int:
        return await self._database.write(
            lambda: feed.compact(self.tables, Instant(self._database.clock() - age), limit=limit)
        )

    async def renew_epoch(self, epoch: str) -> FeedHead:
        def write() -> FeedHead:
            if self.tables.epoch == epoch:
                self.tables.epoch = self.tables.new_epoch()
            return self.tables.head

        return await self._database.write(write)

    async def close(self) -> None:
        """Do nothing: its owner ends its transactions."""
