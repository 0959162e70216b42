"""New jobs that are copied in, as PostgreSQL takes many: all of them, or none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from jobledger_server.database.url import parse_url
from jobledger_server.domain.commands import ChangeStatus
from jobledger_server.domain.job import JobStatus
from jobledger_server.sql.database import open_database
from jobledger_server.sql.postgresql.postgresql_driver import COPY_FROM_ROWS
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import StoredJob, StoreUnavailable
from tests.support.databases import several_servers
from tests.support.store_writer import append, creation, read_job, read_jobs, step

pytestmark = several_servers

MANY = 3 * COPY_FROM_ROWS


@asynccontextmanager
async def writes_held_up(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Let nobody write jobs in the block."""
    connection = await asyncpg.connect(database_url)
    async with connection.transaction():
        await connection.execute("LOCK TABLE jobs IN SHARE MODE")
        yield connection
    await connection.close()


async def copying(watcher: asyncpg.Connection) -> int:
    """Return which of PostgreSQL's processes waits with a copy, as soon as one does."""
    waiting = (
        "SELECT pid FROM pg_stat_activity WHERE query LIKE 'COPY %' AND wait_event_type = 'Lock'"
        " AND datname = current_database()"
    )
    async with asyncio.timeout(30):
        while (pid := await watcher.fetchval(waiting)) is None:
            await watcher.execute("SELECT pg_stat_clear_snapshot()")
    found: int = pid
    return found


async def test_a_transition_of_a_copied_job_is_written_after_the_job(store: SqlStore) -> None:
    many = [creation() for _ in range(MANY)]
    start = step(many[0].job, ChangeStatus(job_id=many[0].job.id, target=JobStatus.PROCESSING))
    await append(store, *many, start)
    assert await read_job(store, start.job.id) == StoredJob(start.job, (start.transition,))


async def test_a_copy_whose_connection_breaks_writes_nothing_and_can_be_repeated(
    store: SqlStore, database_url: str
) -> None:
    many = [creation() for _ in range(MANY)]
    async with writes_held_up(database_url) as other:
        task = asyncio.create_task(append(store, *many))
        await other.execute("SELECT pg_terminate_backend($1, 10000)", await copying(other))
        with pytest.raises(StoreUnavailable) as refused:
            await task
    assert refused.value.stale
    assert [change.seq for change in await append(store, *many)] == list(range(1, MANY + 1))
    found = await read_jobs(store, [decision.job.id for decision in many])
    assert found == {decision.job.id: decision.job for decision in many}


async def test_a_cancelled_copy_writes_nothing(store: SqlStore, database_url: str) -> None:
    many = [creation() for _ in range(MANY)]
    async with writes_held_up(database_url) as other:
        task = asyncio.create_task(append(store, *many))
        await copying(other)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [change.seq for change in await append(store, creation())] == [1]


async def test_a_copy_that_takes_too_long_is_aborted(database_url: str) -> None:
    store = SqlStore(open_database(parse_url(database_url), seconds=0.3))
    async with writes_held_up(database_url):
        with pytest.raises(StoreUnavailable):
            await append(store, *(creation() for _ in range(MANY)))
    many = [creation() for _ in range(MANY)]
    assert [change.seq for change in await append(store, *many)] == list(range(1, MANY + 1))
    await store.close()
