"""The store: jobs, assets, transitions and the feed in a SQL database."""

import asyncio
import uuid
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Executable, exc, select
from sqlalchemy.ext.asyncio import AsyncConnection

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
from jobledger_server.domain.limits import MAX_ANSWER_BYTES, MAX_SCANNED_JOBS
from jobledger_server.sql.database_errors import cause_of, failure
from jobledger_server.sql.dialect import Database
from jobledger_server.sql.driver import Driver, Prepared
from jobledger_server.sql.feed_pages import FeedReading, fitting
from jobledger_server.sql.job_cache import JobCache
from jobledger_server.sql.rows import (
    asset_from_row,
    change_from_row,
    history_from_row,
    job_from_row,
    transition_from_row,
)
from jobledger_server.sql.statements import ANSWER_SIZE, Statements, bind_owned
from jobledger_server.sql.tables import assets, job_transitions, jobs
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
    StoreConflict,
)

Result = TypeVar("Result")

INTERRUPT_SECONDS = 0.05
"""Between attempts to end a statement that nobody waits for."""


class SqlStore:
    """Jobs, assets and transitions in a SQL database; see `store.Store`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._dialect = database.dialect
        self._statements = Statements(database.dialect, database.writer.dialect)
        self._cache = JobCache()
        # A single statement needs no transaction around it; several that must agree do.
        self._single = database.reader.execution_options(**self._dialect.single_statement)
        self._snapshot = database.reader.execution_options(**self._dialect.snapshot)
        self._lists = database.lists.execution_options(**self._dialect.snapshot)

    def transaction(self) -> AbstractAsyncContextManager[SqlTransaction]:
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[SqlTransaction]:
        progress = _Progress()
        with self._translating(progress):
            async with self._database.writer.connect() as connection:
                driver = await self._driver(connection)
                try:
                    await driver.begin()
                    now = await driver.now()
                    transaction = SqlTransaction(driver, self._statements, self._cache, now)
                    yield transaction
                    await driver.commit()
                    transaction.committed()
                except BaseException as error:
                    progress.committing = driver.committing
                    progress.lost = driver.lost(error)
                    await self._give_up(connection, driver, error, lost=progress.lost)
                    raise

    async def _give_up(
        self, connection: AsyncConnection, driver: Driver, error: BaseException, *, lost: bool
    ) -> None:
        """Undo what a transaction has done so far, or let go of its connection."""
        undone = False
        try:
            if not lost and not _unanswered(error):
                with suppress(Exception):
                    await driver.rollback()
                    undone = True
        finally:
            # Also where the rollback is cancelled: else its writes would be the next one's.
            if not undone:
                await self._discard(connection, driver, lost=lost)

    async def _discard(self, connection: AsyncConnection, driver: Driver, *, lost: bool) -> None:
        """Let go of a connection that is broken, or that nobody waits for any more."""
        if lost:
            # So, most likely, are those that are at rest: the database was away. SQLAlchemy has
            # the pool replace all of them, when they are next wanted, where it sees for itself
            # that one is broken. To close them all here would wait for each dead peer in turn.
            driver.terminate()
            with suppress(exc.DBAPIError):
                await connection.exec_driver_sql("SELECT 1")
        await connection.invalidate()

    async def read_jobs(
        self, ids: Collection[JobId] = (), owned: Collection[Owned] = ()
    ) -> dict[JobId, Job]:
        wanted = bind_owned(self._dialect, ids, owned)
        rows = await self._fetch_prepared(self._statements.read_jobs, wanted)
        return {job.id: job for job in map(job_from_row, rows)}

    async def read_histories(
        self, ids: Collection[JobId] = (), owned: Collection[Owned] = ()
    ) -> dict[JobId, tuple[Job, list[Transition]]]:
        wanted = bind_owned(self._dialect, ids, owned)
        histories: dict[JobId, tuple[Job, list[Transition]]] = {}
        for row in await self._fetch_prepared(self._statements.read_histories, wanted):
            job, step = history_from_row(row)
            _, steps = histories.setdefault(job.id, (job, []))
            if step is not None:
                steps.append(step)
        return histories

    async def list_jobs(self, query: JobQuery, *, before: JobId | None, limit: int) -> JobPage:
        async def read(connection: AsyncConnection) -> JobPage:
            return await _job_page(connection, query, before=before, limit=limit)

        return await self._list(read)

    async def list_assets(self, job_id: JobId, *, after: AssetId | None, limit: int) -> list[Asset]:
        statement = select(assets).where(assets.c.job_id == job_id)
        if after is not None:
            statement = statement.where(assets.c.id > after)
        statement = statement.order_by(assets.c.id).limit(limit)
        return [asset_from_row(row) for row in await self._list(_all(statement))]

    async def list_transitions(
        self, job_id: JobId, *, after_version: int, limit: int
    ) -> list[Transition]:
        statement = (
            select(job_transitions)
            .where(job_transitions.c.job_id == job_id, job_transitions.c.version > after_version)
            .order_by(job_transitions.c.version)
            .limit(limit)
        )
        return [transition_from_row(row) for row in await self._list(_all(statement))]

    async def find_claimable(self, limits: Mapping[str, int], *, limit: int) -> list[Claimable]:
        statement, values = self._dialect.find_claimable(limits, limit, lock=False)
        return [Claimable(*row) for row in await self._fetch(statement, values)]

    async def overdue(self, *, limit: int) -> Overdue:
        rows = await self._read(self._statements.overdue, {"count": limit})
        return Overdue(rows[0][0], [job_id for _, job_id in rows if job_id is not None])

    async def find_purgeable(self, age: Micros, *, limit: int) -> list[JobId]:
        with self._translating(_Progress()):
            async with self._single.connect() as connection:
                before = Instant(await self._dialect.now(connection) - age)
                found = await connection.execute(
                    self._statements.find_purgeable,
                    {"before": before, "before_id": first_id(before), "count": limit},
                )
                return [job_id for (job_id,) in found]

    async def feed_head(self) -> FeedHead:
        (row,) = await self._read(self._statements.feed_head)
        return FeedHead(*row)

    async def changes_after(
        self, seq: int, *, limit: int, max_bytes: int = PAGE_BYTES, user_id: str | None = None
    ) -> FeedPage:
        with self._translating(_Progress()):
            async with self._snapshot.connect() as connection, connection.begin():
                head = FeedHead(*(await connection.execute(self._statements.feed_head)).one())
                if seq < head.compacted_seq:
                    raise FeedCompacted
                if seq >= head.seq:
                    return FeedPage(head, [], seq)
                reading = FeedReading(
                    connection,
                    self._statements,
                    limit=limit,
                    max_bytes=max_bytes,
                    user_id=user_id,
                )
                return await reading.page(head, seq)

    async def newest_from(self, *, limit: int, max_bytes: int) -> int:
        head = await self.feed_head()
        floor = max(head.compacted_seq, head.seq - limit)
        page = {"seq": floor, "count": limit, "max_bytes": max_bytes}
        ((too_many,),) = await self._read(self._statements.newest_from, page)
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
        changes = [change_from_row(row) for row in await self._read(feed.active, page)]
        count, whole = fitting([c.job.content_bytes for c in changes], limit, max_bytes)
        return ActivePage(changes[:count], until if whole else changes[count - 1].seq)

    async def compact_deletions(self, age: Micros, *, limit: int) -> int:
        return await _to_its_end(self._compact_deletions(age, limit))

    async def _compact_deletions(self, age: Micros, limit: int) -> int:
        with self._translating(_Progress()):
            async with self._database.writer.connect() as connection, connection.begin():
                before = await self._dialect.now(connection) - age
                span = {"before": before, "count": limit}
                old = await connection.execute(self._statements.last_old_deletion, span)
                last = {"last": old.scalar_one()}
                if last["last"] is None:
                    return 0
                gone = await connection.execute(self._statements.compact_deletions, last)
                await connection.execute(self._statements.set_compacted_seq, last)
                return gone.rowcount

    async def verify_identity(self) -> FeedHead:
        return await self._rename_feed(self._statements.verify_identity, {})

    async def renew_epoch(self, epoch: str) -> FeedHead:
        return await self._rename_feed(self._statements.renew_epoch, {"old": epoch})

    async def _rename_feed(self, statement: Executable, which: dict[str, Any]) -> FeedHead:
        return await _to_its_end(self._rename(statement, which))

    async def _rename(self, statement: Executable, which: dict[str, Any]) -> FeedHead:
        self._cache.clear()
        with self._translating(_Progress()):
            async with self._database.writer.connect() as connection, connection.begin():
                await connection.execute(statement, {**which, "new": uuid.uuid4().hex})
                return FeedHead(*(await connection.execute(self._statements.feed_head)).one())

    async def close(self) -> None:
        await self._database.close()

    async def _fetch_prepared(
        self, statement: Prepared, parameters: dict[str, Any]
    ) -> Sequence[Sequence[Any]]:
        return await self._fetch(statement.text, statement.values(parameters))

    async def _fetch(self, statement: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Read what many calls want, by the driver itself."""
        progress = _Progress()
        with self._translating(progress):
            async with self._single.connect() as connection:
                driver = await self._driver(connection)
                try:
                    return await driver.fetch(statement, values)
                except BaseException as error:
                    progress.lost = driver.lost(error)
                    if progress.lost or _unanswered(error):
                        await self._discard(connection, driver, lost=progress.lost)
                    raise

    async def _driver(self, connection: AsyncConnection) -> Driver:
        return self._dialect.driver((await connection.get_raw_connection()).driver_connection)

    async def _read(
        self, statement: Executable, parameters: dict[str, Any] | None = None
    ) -> Sequence[Any]:
        with self._translating(_Progress()):
            async with self._single.connect() as connection:
                return (await connection.execute(statement, parameters)).all()

    async def _list(self, read: Callable[[AsyncConnection], Awaitable[Result]]) -> Result:
        """Read on a connection that is for lists, in one snapshot.

        To the end in any case, however often it is cancelled, else SQLite's driver would lose the
        connection with all that it holds. A read that nobody waits for is interrupted.
        """
        drivers: list[Driver] = []
        reading = asyncio.create_task(self._listing(read, drivers))
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            while not reading.done():
                with suppress(asyncio.CancelledError):
                    for driver in drivers:
                        await driver.interrupt()
                    # Again and again: it may have been between two statements.
                    await asyncio.wait([reading], timeout=INTERRUPT_SECONDS)
            reading.exception()  # nobody else asks for it
            raise

    async def _listing(
        self, read: Callable[[AsyncConnection], Awaitable[Result]], drivers: list[Driver]
    ) -> Result:
        with self._translating(_Progress()):
            async with self._lists.connect() as connection, connection.begin():
                drivers.append(await self._driver(connection))
                try:
                    return await read(connection)
                finally:
                    drivers.clear()

    @contextmanager
    def _translating(self, progress: "_Progress") -> Iterator[None]:
        """Turn the database's errors into the store's."""
        try:
            yield
        except self._database.conflicts as error:
            raise StoreConflict(cause_of(error)) from error
        except self._database.unavailable_errors as error:
            self._cache.clear()  # it may be another database that answers next
            lost = progress.lost or (
                isinstance(error, exc.DBAPIError) and error.connection_invalidated
            )
            raise failure(error, stale=lost and not progress.committing) from error


async def _to_its_end(writing: Coroutine[Any, Any, Result]) -> Result:
    """Let a short transaction of SQLAlchemy's end before its caller is, however often, cancelled.

    Cut off in the middle, what SQLite's driver was told is done all the same, on a connection
    that nobody has any more: it would keep the file locked until that is collected as garbage.
    """
    task = asyncio.create_task(writing)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        task.exception()  # nobody else asks for it
        raise


@dataclass
class _Progress:
    """How far a transaction is: once its commit is under way, its outcome can be unknown.

    `lost` says that its connection broke.
    """

    committing: bool = False
    lost: bool = False


def _unanswered(error: BaseException) -> bool:
    """Whether nobody waits for what a statement still does: not even for a rollback."""
    return not isinstance(error, Exception) or isinstance(error, TimeoutError)


def _all(statement: Executable) -> Callable[[AsyncConnection], Awaitable[Sequence[Any]]]:
    async def read(connection: AsyncConnection) -> Sequence[Any]:
        return (await connection.execute(statement)).all()

    return read


async def _job_page(
    connection: AsyncConnection, query: JobQuery, *, before: JobId | None, limit: int
) -> JobPage:
    """Read a page of jobs: first how far to scan, then which jobs, then these."""
    span = _span(query, before)
    filters = _filters(query)
    newest_first = jobs.c.id.desc()
    rest = None
    if filters:
        last = select(jobs.c.id).where(*span).order_by(newest_first)
        rest = await connection.scalar(last.limit(1).offset(MAX_SCANNED_JOBS - 1))
        if rest is not None:
            span.append(jobs.c.id >= rest)
    sizes = select(jobs.c.id, ANSWER_SIZE).where(*span, *filters).order_by(newest_first)
    # One more than wanted shows whether any follow.
    found = (await connection.execute(sizes.limit(limit + 1))).all()
    count, _ = fitting([size for _, size in found], limit, MAX_ANSWER_BYTES)
    ids = [job_id for job_id, _ in found[:count]]
    if count < len(found):
        rest = ids[-1]
    page = select(jobs).where(jobs.c.id.in_(ids)).order_by(newest_first)
    rows = (await connection.execute(page)).all() if ids else ()
    return JobPage([job_from_row(row) for row in rows], rest)


def _span(query: JobQuery, before: JobId | None) -> list[ColumnElement[bool]]:
    """Return which of the owner's jobs are scanned, by an index."""
    span = [jobs.c.user_id == query.user_id]
    if before is not None:
        span.append(jobs.c.id < before)
    if query.created_after is not None:
        span.append(jobs.c.id >= first_id(query.created_after))
    return span


def _filters(query: JobQuery) -> list[ColumnElement[bool]]:
    """Return what else is true of a job that is listed."""
    filters: list[ColumnElement[bool]] = []
    if query.statuses:
        filters.append(jobs.c.status.in_(sorted(s.value for s in query.statuses)))
    if query.job_types:
        filters.append(jobs.c.job_type.in_(sorted(query.job_types)))
    if query.created_after is not None:
        filters.append(jobs.c.create_time > query.created_after)
    if query.created_before is not None:
        filters.append(jobs.c.create_time < query.created_before)
    filters += [jobs.c.labels[key].as_string() == value for key, value in query.labels.items()]
    return filters
