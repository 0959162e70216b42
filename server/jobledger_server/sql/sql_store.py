"""The store: jobs, assets, transitions and the feed in a SQL database."""

import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from sqlalchemy import Executable

from jobledger_server.domain.job import Asset, AssetId, Attempt, JobId, Micros
from jobledger_server.domain.queues import EndedReasons, next_queues
from jobledger_server.domain.retention import Purgeable, purgeable
from jobledger_server.sql.database import Database
from jobledger_server.sql.driver import Prepared
from jobledger_server.sql.job_cache import JobCache
from jobledger_server.sql.job_lists import assets_of, attempts_of, job_page
from jobledger_server.sql.output_tails import OutputTails
from jobledger_server.sql.outputs import SqlOutputs
from jobledger_server.sql.queue_reports import SqlQueueReports
from jobledger_server.sql.queue_settings import SqlQueueSettings, read_config
from jobledger_server.sql.rows import (
    asset_from_row,
    attempt_from_row,
    change_from_row,
    queues_from_rows,
    ready_in_order,
    recorded_change,
    stored_job_from_row,
)
from jobledger_server.sql.statements import RECORD_POLLER, bind_ids, statements_for
from jobledger_server.sql.store_connections import StoreConnections, runs_to_completion
from jobledger_server.sql.sweeps import SqlSweeps
from jobledger_server.sql.transaction import SqlTransaction
from jobledger_server.sql.webhooks import SqlWebhooks
from jobledger_server.store import (
    ActivePage,
    ActivePosition,
    Change,
    Claimable,
    Config,
    FeedCompacted,
    FeedHead,
    FeedPage,
    JobPage,
    JobQuery,
    News,
    StoredJob,
)
from jobledger_server.tuning import Tuning


class SqlStore:
    """Jobs, assets and transitions in a SQL database; see `store.Store`."""

    def __init__(self, database: Database, *, tuning: Tuning = Tuning()) -> None:
        self._tuning = tuning
        self._dialect = database.dialect
        self._statements = statements_for(database.dialect)
        self._cache = JobCache(tuning.job_cache_bytes)
        self._reasons = EndedReasons()
        self._tails = OutputTails()
        self._connections = StoreConnections(database, on_unavailable=self._doubt)
        self._in_doubt = False  # another database may answer since the identity was verified
        self.queue_settings = SqlQueueSettings(self._connections, self._dialect, tuning)
        self.queue_reports = SqlQueueReports(self._connections, self._dialect)
        self.webhooks = SqlWebhooks(self._connections, self._dialect)
        self.outputs = SqlOutputs(self._connections, self._dialect)
        self.sweeps = SqlSweeps(self._connections, database.dialect)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlTransaction]:
        async with self._connections.transaction() as driver:
            transaction = SqlTransaction(
                driver,
                self._statements,
                self._cache,
                self._reasons,
                self._tails,
                blocked_types=self._tuning.blocked_types,
            )
            try:
                yield transaction
                await driver.commit()
            except BaseException:
                transaction.failed()
                raise
            transaction.committed()

    async def read_jobs(self, ids: Collection[JobId], *, full: bool) -> dict[JobId, StoredJob]:
        statement = self._statements.read_full_jobs if full else self._statements.read_jobs
        rows = await self._read_jobs(statement, ids)
        return {stored.job.id: stored for stored in map(stored_job_from_row, rows)}

    async def _read_jobs(
        self, statement: Prepared, ids: Collection[JobId]
    ) -> Sequence[Sequence[Any]]:
        values = statement.values(bind_ids(self._dialect, "ids", ids))
        return await self._connections.fetch(statement.text, values)

    async def list_attempts(self, job_id: JobId, *, after: int, limit: int) -> list[Attempt]:
        rows = await self._connections.list_rows(attempts_of(job_id, after=after, limit=limit))
        return [attempt_from_row(row) for row in rows]

    async def list_jobs(
        self, query: JobQuery, *, before: JobId | None, limit: int, full: bool = False
    ) -> JobPage:
        step = self._tuning.list_step
        return await self._connections.read_list(
            partial(job_page, query=query, before=before, limit=limit, full=full, step=step)
        )

    async def list_assets(self, job_id: JobId, *, after: AssetId | None, limit: int) -> list[Asset]:
        rows = await self._connections.list_rows(assets_of(job_id, after=after, limit=limit))
        return [asset_from_row(row) for row in rows]

    async def read_assets(self, ids: Collection[JobId]) -> dict[JobId, Sequence[Asset]]:
        rows = await self._read_jobs(self._statements.read_assets, ids)
        found: defaultdict[JobId, list[Asset]] = defaultdict(list)
        for asset in map(asset_from_row, rows):
            found[asset.job_id].append(asset)
        return dict(found)

    async def find_claimable(self, limits: Mapping[str, int], *, limit: int) -> list[Claimable]:
        fetch = self._connections.fetch
        rows = await fetch(*self._dialect.find_queues(limits, limit=limit))
        order = list(next_queues(queues_from_rows(rows), limits, limit=limit))
        if not order:
            return []
        counts = Counter(queue.number for queue in order)
        rows = await fetch(*self._dialect.find_ready(counts))
        most = self._tuning.overdue_queues
        if rows or limit >= most:
            return ready_in_order([queue.name for queue in order], rows)
        # The jobs of these queues are overdue, and leave them soon. Others go before them.
        more = dict.fromkeys(limits, most)
        return (await self.find_claimable(more, limit=most))[:limit]

    @runs_to_completion
    async def config(self) -> Config:
        async with self._connections.snapshot() as connection:
            return await read_config(connection)

    async def news(self, job_types: Collection[str]) -> News:
        if self._in_doubt:
            await self.verify_identity()
        bound = self._dialect.bind_list("types", job_types)
        rows = await self._connections.poll(self._statements.blocking.news, bound)
        now, epoch, seq, compacted, identity, version, deadline, due, recheck = rows[0][:9]
        ready = {job_type: int(count) for *_, job_type, count in rows if job_type is not None}
        return News(
            now,
            FeedHead(epoch, seq, compacted, identity),
            version,
            overdue=deadline is not None,
            due=due is not None,
            recheck=recheck is not None,
            ready=ready,
        )

    async def find_rechecks(self, *, after: str, limit: int) -> list[str]:
        bound = {"after": after, "count": limit}
        rows = await self._connections.read(self._statements.blocking.rechecks, bound)
        return [key for (key,) in rows]

    @runs_to_completion
    async def record_pollers(
        self, server: str, job_types: Collection[str], *, lasts: Micros
    ) -> None:
        async with self._connections.writing() as connection:
            until = await self._dialect.now(connection) + lasts
            rows = [
                {"server": server, "job_type": job_type, "expire_time": until}
                for job_type in sorted(job_types)
            ]
            await connection.execute(RECORD_POLLER, rows)

    async def find_held(
        self, worker_id: str, job_types: Collection[str], *, limit: int
    ) -> list[tuple[JobId, int]]:
        values = {"worker_id": worker_id, "job_types": sorted(job_types), "count": limit}
        rows = await self._connections.read(self._statements.find_held, values)
        return [(JobId(job_id), attempt) for job_id, attempt in rows]

    async def count_active(self, user_id: str, *, limit: int) -> int:
        values = {"user_id": user_id, "count": limit}
        ((count,),) = await self._connections.read(self._statements.count_active, values)
        return int(count)

    @runs_to_completion
    async def find_purgeable(self, age: Micros, *, after: int, limit: int) -> Purgeable:
        async with self._connections.snapshot() as connection:
            now = await self._dialect.now(connection)
            count = self._tuning.scanned_ends
            page = {"seq": after, "count": count}
            rows = (await connection.execute(self._statements.feed.ends, page)).all()
        changes = [tuple(row) for row in rows]
        return purgeable(changes, after=after, now=now, age=age, limit=limit, scanned=count)

    async def find_outlived(self, *, limit: int) -> list[JobId]:
        rows = await self._connections.read(self._statements.outlived, {"count": limit})
        return [job_id for (job_id,) in rows]

    def _doubt(self) -> None:
        self._cache.clear()
        self._tails.clear()
        self._in_doubt = True

    async def feed_head(self) -> FeedHead:
        if self._in_doubt:
            return await self.verify_identity()
        (row,) = await self._connections.poll(self._statements.feed_head)
        return FeedHead(*row)

    @runs_to_completion
    async def changes_after(
        self, seq: int, *, limit: int, user_id: str | None = None, until: int | None = None
    ) -> FeedPage:
        async with self._connections.snapshot() as connection:
            head = FeedHead(*(await connection.execute(self._statements.feed.head)).one())
            if seq < head.compacted_seq:
                raise FeedCompacted
            last = head.seq if until is None else min(until, head.seq)
            if seq >= last:
                return FeedPage(head, [], seq)
            bounds: dict[str, Any] = {"seq": seq, "count": limit}
            if user_id is None:
                statement = self._statements.feed.changes
                bounds["until"] = last
            else:
                statement = self._statements.feed.owned_changes
                bounds["user_id"] = user_id
            rows = (await connection.execute(statement, bounds)).all()
        # The whole row of the job follows the sequence number.
        changes = [recorded_change(row, at) for at, *row in rows if row[0] is not None]
        return FeedPage(head, changes, last if len(rows) < limit else rows[-1][0])

    async def active_jobs(
        self,
        after: ActivePosition,
        *,
        until: int,
        limit: int,
        user_id: str | None = None,
        ids: Collection[JobId] = (),
    ) -> ActivePage:
        if ids:
            found = await self._find_active(after, limit, user_id, ids)
        else:
            bounds: dict[str, Any] = {"after_id": after.job_id, "count": limit}
            if user_id is None:
                statement = self._statements.feed.active_jobs
                bounds["after_user_id"] = after.user_id
            else:
                statement = self._statements.feed.owned_active_jobs
                bounds["user_id"] = user_id
            rows = await self._connections.read(statement, bounds)
            found = [change_from_row(row) for row in rows]
        last = None if len(found) < limit else ActivePosition(*_position(found[-1]))
        # A job that changed since is left out: the feed has it after `until`.
        return ActivePage([change for change in found if change.seq <= until], last)

    @runs_to_completion
    async def _find_active(
        self, after: ActivePosition, limit: int, user_id: str | None, ids: Collection[JobId]
    ) -> list[Change]:
        """Return the first active jobs among these: they are few, so the database need not sort."""
        first = (after.user_id if user_id is None else user_id, after.job_id)
        rows = await self._read_jobs(self._statements.read_jobs, ids)
        found = sorted(map(change_from_row, rows), key=_position)
        return [
            change
            for change in found
            if change.job.complete_time is None
            and user_id in (None, change.job.user_id)
            and _position(change) > first
        ][:limit]

    @runs_to_completion
    async def compact_deletions(self, age: Micros, *, limit: int) -> int:
        forget = self._statements.forget
        async with self._connections.writing() as connection:
            before = await self._dialect.now(connection) - age
            bounds = {"before": before, "count": limit}
            old = (await connection.execute(forget.lock, bounds)).all()
            if not old:
                return 0
            ids = {"ids": [row[0] for row in old]}
            seqs = {"seqs": [seq for _, *of_job in old for seq in of_job if seq is not None]}
            await connection.execute(forget.changes, seqs)
            await connection.execute(forget.attempts, ids)
            await connection.execute(forget.jobs, ids)
            last = {"last": max(row[-1] for row in old)}
            await connection.execute(forget.set_compacted_seq, last)
            return len(old)

    async def verify_identity(self) -> FeedHead:
        # Cleared first: a failure brings the doubt back.
        self._in_doubt = False
        return await self._set_epoch(self._statements.verify_identity, {})

    async def renew_epoch(self, epoch: str) -> FeedHead:
        return await self._set_epoch(self._statements.renew_epoch, {"old": epoch})

    @runs_to_completion
    async def _set_epoch(self, statement: Executable, parameters: Mapping[str, Any]) -> FeedHead:
        self._cache.clear()
        self._tails.clear()
        async with self._connections.writing() as connection:
            await connection.execute(statement, {**parameters, "new": uuid.uuid4().hex})
            return FeedHead(*(await connection.execute(self._statements.feed.head)).one())

    async def close(self) -> None:
        await self._connections.close()


def _position(change: Change) -> tuple[str, JobId]:
    return change.job.user_id, change.job.id
