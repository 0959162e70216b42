"""The store: jobs, assets, transitions and the feed in a SQL database."""

import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from sqlalchemy import Executable

from jobledger_server.domain.job import (
    Asset,
    AssetId,
    Instant,
    Job,
    JobId,
    Micros,
    Transition,
    first_id,
)
from jobledger_server.sql.database import Database
from jobledger_server.sql.driver import Prepared
from jobledger_server.sql.feed_pages import FeedPageReader, fitting
from jobledger_server.sql.job_cache import JobCache
from jobledger_server.sql.job_lists import JobLists
from jobledger_server.sql.rows import change_from_row, history_from_row, job_from_row
from jobledger_server.sql.statements import Statements, bind_owned
from jobledger_server.sql.store_connections import StoreConnections, to_completion
from jobledger_server.sql.transaction import SqlTransaction
from jobledger_server.store import (
    PAGE_BYTES,
    ActivePage,
    Claimable,
    FeedCompacted,
    FeedHead,
    FeedPage,
    JobPage,
    JobQuery,
    Overdue,
    Owned,
)


class SqlStore:
    """Jobs, assets and transitions in a SQL database; see `store.Store`."""

    def __init__(self, database: Database) -> None:
        self._dialect = database.dialect
        self._statements = Statements(database.dialect, database.writer.dialect)
        self._cache = JobCache()
        self._connections = StoreConnections(database, on_unavailable=self._cache.clear)
        self._lists = JobLists(self._connections)

    def transaction(self) -> AbstractAsyncContextManager[SqlTransaction]:
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[SqlTransaction]:
        async with self._connections.transaction() as driver:
            now = await driver.now()
            transaction = SqlTransaction(driver, self._statements, self._cache, now)
            yield transaction
            await driver.commit()
            transaction.committed()

    async def read_jobs(
        self, ids: Collection[JobId] = (), owned: Collection[Owned] = ()
    ) -> dict[JobId, Job]:
        parameters = bind_owned(self._dialect, ids, owned)
        rows = await self._fetch(self._statements.read_jobs, parameters)
        return {job.id: job for job in map(job_from_row, rows)}

    async def read_histories(
        self, ids: Collection[JobId] = (), owned: Collection[Owned] = ()
    ) -> dict[JobId, tuple[Job, list[Transition]]]:
        parameters = bind_owned(self._dialect, ids, owned)
        histories: dict[JobId, tuple[Job, list[Transition]]] = {}
        for row in await self._fetch(self._statements.read_histories, parameters):
            job, transition = history_from_row(row)
            _, transitions = histories.setdefault(job.id, (job, []))
            if transition is not None:
                transitions.append(transition)
        return histories

    async def list_jobs(self, query: JobQuery, *, before: JobId | None, limit: int) -> JobPage:
        return await self._lists.list_jobs(query, before=before, limit=limit)

    async def list_assets(self, job_id: JobId, *, after: AssetId | None, limit: int) -> list[Asset]:
        return await self._lists.list_assets(job_id, after=after, limit=limit)

    async def list_transitions(
        self, job_id: JobId, *, after_version: int, limit: int
    ) -> list[Transition]:
        return await self._lists.list_transitions(job_id, after_version=after_version, limit=limit)

    async def find_claimable(self, limits: Mapping[str, int], *, limit: int) -> list[Claimable]:
        statement, values = self._dialect.find_claimable(limits, limit, lock=False)
        return [Claimable(*row) for row in await self._connections.fetch(statement, values)]

    async def overdue(self, *, limit: int) -> Overdue:
        rows = await self._connections.read(self._statements.overdue, {"count": limit})
        return Overdue(rows[0][0], [job_id for _, job_id in rows if job_id is not None])

    async def find_purgeable(self, age: Micros, *, limit: int) -> list[JobId]:
        return await to_completion(self._find_purgeable(age, limit))

    async def _find_purgeable(self, age: Micros, limit: int) -> list[JobId]:
        async with self._connections.snapshot() as connection:
            before = Instant(await self._dialect.now(connection) - age)
            found = await connection.execute(
                self._statements.find_purgeable,
                {"before": before, "before_id": first_id(before), "count": limit},
            )
            return [job_id for (job_id,) in found]

    async def feed_head(self) -> FeedHead:
        (row,) = await self._connections.read(self._statements.feed_head)
        return FeedHead(*row)

    async def changes_after(
        self, seq: int, *, limit: int, max_bytes: int = PAGE_BYTES, user_id: str | None = None
    ) -> FeedPage:
        return await to_completion(self._changes_after(seq, limit, max_bytes, user_id))

    async def _changes_after(
        self, seq: int, limit: int, max_bytes: int, user_id: str | None
    ) -> FeedPage:
        async with self._connections.snapshot() as connection:
            head = FeedHead(*(await connection.execute(self._statements.feed_head)).one())
            if seq < head.compacted_seq:
                raise FeedCompacted
            if seq >= head.seq:
                return FeedPage(head, [], seq)
            reader = FeedPageReader(
                connection,
                self._statements,
                limit=limit,
                max_bytes=max_bytes,
                user_id=user_id,
            )
            return await reader.page(head, seq)

    async def newest_from(self, *, limit: int, max_bytes: int) -> int:
        head = await self.feed_head()
        floor = max(head.compacted_seq, head.seq - limit)
        page = {"seq": floor, "count": limit, "max_bytes": max_bytes}
        ((too_many,),) = await self._connections.read(self._statements.newest_from, page)
        return floor if too_many is None else int(too_many)

    async def active_jobs(
        self,
        seq: int,
        *,
        until: int,
        limit: int,
        max_bytes: int = PAGE_BYTES,
        user_id: str | None = None,
    ) -> ActivePage:
        feed = self._statements.feed if user_id is None else self._statements.owned_feed
        page: dict[str, Any] = {
            "seq": seq,
            "until": until,
            "count": limit,
            "max_bytes": max_bytes,
        }
        if user_id is not None:
            page["user_id"] = user_id
        rows = await self._connections.read(feed.active, page)
        changes = [change_from_row(row) for row in rows]
        count, whole = fitting([c.job.memory_bytes for c in changes], limit, max_bytes)
        return ActivePage(changes[:count], until if whole else changes[count - 1].seq)

    async def compact_deletions(self, age: Micros, *, limit: int) -> int:
        return await to_completion(self._compact_deletions(age, limit))

    async def _compact_deletions(self, age: Micros, limit: int) -> int:
        async with self._connections.writing() as connection:
            before = await self._dialect.now(connection) - age
            bounds = {"before": before, "count": limit}
            old = await connection.execute(self._statements.last_old_deletion, bounds)
            last = {"last": old.scalar_one()}
            if last["last"] is None:
                return 0
            deleted = await connection.execute(self._statements.compact_deletions, last)
            await connection.execute(self._statements.set_compacted_seq, last)
            return deleted.rowcount

    async def verify_identity(self) -> FeedHead:
        return await to_completion(self._set_epoch(self._statements.verify_identity, {}))

    async def renew_epoch(self, epoch: str) -> FeedHead:
        return await to_completion(self._set_epoch(self._statements.renew_epoch, {"old": epoch}))

    async def _set_epoch(self, statement: Executable, parameters: Mapping[str, Any]) -> FeedHead:
        self._cache.clear()
        async with self._connections.writing() as connection:
            await connection.execute(statement, {**parameters, "new": uuid.uuid4().hex})
            return FeedHead(*(await connection.execute(self._statements.feed_head)).one())

    async def close(self) -> None:
        await self._connections.close()

    async def _fetch(
        self, statement: Prepared, parameters: Mapping[str, Any]
    ) -> Sequence[Sequence[Any]]:
        return await self._connections.fetch(statement.text, statement.values(parameters))
