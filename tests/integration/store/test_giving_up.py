"""What happens to a transaction that is not completed, and to its connection."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from jobledger_server.database.url import parse_url
from jobledger_server.domain.commands import Delete, Report
from jobledger_server.domain.job import JobId, JobStatus, Micros
from jobledger_server.sql.database import Database, open_database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.sql.transaction import SqlTransaction
from jobledger_server.store import StoreConflict, StoreUnavailable
from tests.support.databases import execute, several_servers
from tests.support.gated_store import Gate
from tests.support.store_writer import append, creation, finished, moved, read_job, saved, step


async def backends(database_url: str) -> set[int]:
    """Return which of PostgreSQL's processes serve a transaction that is open."""
    connection = await asyncpg.connect(database_url)
    found = await connection.fetch(
        "SELECT pid FROM pg_stat_activity"
        " WHERE datname = current_database() AND state = 'idle in transaction'"
    )
    await connection.close()
    return {pid for (pid,) in found}


async def backend(transaction: SqlTransaction, database_url: str) -> int:
    """Return which of PostgreSQL's processes serves the one transaction that is open."""
    await transaction.load_jobs([JobId("j")])  # it begins with its first statement
    (pid,) = await backends(database_url)
    return pid


async def cut_off(database_url: str, pid: int) -> None:
    """End a connection from PostgreSQL's side, and wait until it has."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("SELECT pg_terminate_backend($1, 10_000)", pid)
    await connection.close()


async def test_a_cancelled_transaction_leaves_no_trace(store: SqlStore) -> None:
    written = asyncio.Event()

    async def write() -> None:
        async with store.transaction() as transaction:
            await transaction.append([creation()])
            written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [change.seq for change in await append(store, creation())] == [1]
    assert (await store.feed_head()).seq == 1


async def test_a_transaction_whose_rollback_is_cancelled_leaves_no_trace(
    store: SqlStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection must not return to the pool: the next transaction would commit its writes."""
    gate = Gate()
    driver = type(database.dialect.drivers()(None))

    async def fail() -> None:
        async with store.transaction() as transaction:
            await transaction.append([creation()])
            raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(driver, "rollback", gate)
        task = asyncio.create_task(fail())
        await gate.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [change.seq for change in await append(store, creation())] == [1]
    assert (await store.feed_head()).seq == 1


async def test_a_failed_sqlalchemy_transaction_leaves_no_trace(
    store: SqlStore, database: Database
) -> None:
    """Deletions are compacted by two statements: here the second one fails."""
    job = await finished(store)
    (deletion,) = await append(store, step(job, Delete(job_id=job.id, user_id="ada")))
    refuse = {
        "sqlite": ["CREATE TRIGGER no UPDATE ON feed BEGIN SELECT RAISE(ABORT, 'no'); END"],
        "postgresql": [
            "CREATE FUNCTION no() RETURNS trigger AS $$ BEGIN RAISE 'no'; END $$ LANGUAGE plpgsql",
            "CREATE TRIGGER no BEFORE UPDATE ON feed EXECUTE FUNCTION no()",
        ],
    }[database.dialect.name]
    allow = {"sqlite": "DROP TRIGGER no", "postgresql": "DROP TRIGGER no ON feed"}
    await execute(database, *refuse)
    with pytest.raises(Exception, match="no"):
        await store.compact_deletions(Micros(10**9), limit=10)
    await execute(database, allow[database.dialect.name])
    (change,) = (await store.changes_after(deletion.seq - 1, limit=10)).changes
    assert change.deleted
    await saved(store)


async def test_a_commit_that_fails_leaves_no_trace(store: SqlStore, database: Database) -> None:
    """SQLite then leaves the transaction open: the next one could not begin."""
    orphan = {
        "sqlite": ["CREATE TRIGGER orphan UPDATE ON feed BEGIN INSERT INTO child VALUES (1); END"],
        "postgresql": [
            (
                "CREATE FUNCTION orphan() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN INSERT INTO child VALUES (1); RETURN NULL; END $$"
            ),
            "CREATE TRIGGER orphan AFTER UPDATE ON feed EXECUTE FUNCTION orphan()",
        ],
    }[database.dialect.name]
    await execute(
        database,
        "CREATE TABLE parent (id INTEGER PRIMARY KEY)",
        "CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
        *orphan,
    )
    head = await store.feed_head()
    with pytest.raises(StoreConflict):
        await store.renew_epoch(head.epoch)
    await saved(store)
    assert (await store.feed_head()).epoch == head.epoch


async def test_no_pool_keeps_a_connection_with_an_open_transaction(database: Database) -> None:
    for engine in (database.writer, database.reader, database.lists):
        async with engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            await driver.execute("BEGIN")
            assert database.dialect.in_transaction(driver)
        async with engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert not database.dialect.in_transaction(driver)


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Keep garbage collection from closing what is left open."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
async def test_reads_that_are_cancelled_while_they_connect_leave_nothing_open(
    database_url: str,
) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    store = SqlStore(open_database(parse_url(database_url)))
    await store.feed_head()  # the loop keeps what it opened for its first connection
    await store.close()
    threads, before = set(threading.enumerate()), descriptors()
    for number in range(20):
        store = SqlStore(open_database(parse_url(database_url)))
        reads = [
            asyncio.create_task(store.feed_head()),
            asyncio.create_task(store.changes_after(0, limit=1)),
            asyncio.create_task(store.find_purgeable(Micros(0), after=0, limit=1)),
        ]
        await asyncio.sleep(number / 2000)
        for _ in range(1 + number % 2):  # a client that leaves, and then a server that stops
            for read in reads:
                read.cancel()
            await asyncio.sleep(0)
        await asyncio.wait(reads)
        await store.close()
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
        assert not thread.is_alive()
    assert descriptors() <= before


@several_servers
async def test_after_a_statement_timeout_there_is_no_wait_for_a_rollback(
    database_url: str,
) -> None:
    store = SqlStore(open_database(parse_url(database_url), seconds=0.3))
    with pytest.raises(StoreUnavailable) as refused:
        async with store.transaction() as transaction:
            pid = await backend(transaction, database_url)
            await transaction._driver.fetch("SELECT pg_sleep(3)", [])  # noqa: SLF001
    assert not refused.value.stale
    async with store.transaction() as transaction:
        assert await backend(transaction, database_url) != pid
    await store.close()


@several_servers
async def test_what_waited_too_long_for_a_job_is_not_written_later(
    database_url: str,
) -> None:
    """PostgreSQL itself ends the wait: it goes on with a statement that its client abandoned."""
    store = SqlStore(open_database(parse_url(database_url), seconds=0.5))
    job = await moved(store, await saved(store), JobStatus.PROCESSING)
    holder = await asyncpg.connect(database_url)
    await holder.execute("BEGIN; SELECT FROM jobs FOR UPDATE")
    with pytest.raises(StoreUnavailable) as refused:
        async with store.transaction() as transaction:
            await transaction.load_jobs([job.id])
            late = step(job, Report(job_id=job.id, progress=50))
            await transaction.append([late], last=True)
    assert isinstance(refused.value.__cause__, asyncpg.LockNotAvailableError)
    waiting = "SELECT FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state = 'active'"
    assert not await holder.fetch(f"{waiting} AND datname = current_database()")
    await holder.close()
    assert (await read_job(store, job.id)).job == job
    await store.close()


@several_servers
async def test_a_transaction_whose_connection_broke_is_reported_as_repeatable(
    store: SqlStore, database_url: str
) -> None:
    with pytest.raises(StoreUnavailable) as refused:
        async with store.transaction() as transaction:
            await cut_off(database_url, await backend(transaction, database_url))
            await transaction.load_jobs([JobId("j")])
    assert refused.value.stale


@several_servers
async def test_a_commit_whose_connection_broke_is_reported_as_not_repeatable(
    store: SqlStore, database_url: str
) -> None:
    """It may have been done: the caller gets an unknown outcome."""
    with pytest.raises(StoreUnavailable) as refused:
        async with store.transaction() as transaction:
            pid = await backend(transaction, database_url)
            await transaction.append([creation()])
            await cut_off(database_url, pid)
    assert not refused.value.stale


@several_servers
async def test_after_one_broken_connection_the_idle_ones_are_replaced(
    store: SqlStore, database_url: str
) -> None:
    async with store.transaction() as one, store.transaction() as other:
        for transaction in (one, other):
            await transaction.load_jobs([JobId("j")])  # it begins with its first statement
        pids = await backends(database_url)
    assert len(pids) == 2
    for pid in pids:
        await cut_off(database_url, pid)
    with pytest.raises(StoreUnavailable):
        async with store.transaction() as transaction:
            await transaction.load_jobs([JobId("j")])
    async with store.transaction() as transaction:
        assert await transaction.load_jobs([JobId("j")]) == {}


@several_servers
async def test_what_an_outage_broke_replaces_no_connection_that_was_opened_after_it(
    store: SqlStore, database_url: str
) -> None:
    with pytest.raises(StoreUnavailable):
        async with store.transaction() as late:
            await late.load_jobs([JobId("j")])
            with pytest.raises(StoreUnavailable):
                async with store.transaction() as early:
                    await early.load_jobs([JobId("j")])
                    for pid in await backends(database_url):
                        await cut_off(database_url, pid)
                    await early.load_jobs([JobId("j")])
            async with store.transaction() as transaction:
                opened = await backend(transaction, database_url)
            await late.load_jobs([JobId("j")])
    async with store.transaction() as transaction:
        assert await backend(transaction, database_url) == opened


@several_servers
async def test_where_no_connection_can_be_opened_the_database_is_unavailable(
    database_url: str,
) -> None:
    store = SqlStore(open_database(parse_url(f"{database_url}_missing")))
    cause = "does not exist"
    with pytest.raises(StoreUnavailable, match=cause):
        async with store.transaction() as transaction:
            await transaction.load_jobs([JobId("j")])
    with pytest.raises(StoreUnavailable, match=cause):
        await store.read_jobs([JobId("j")], full=False)
    with pytest.raises(StoreUnavailable, match=cause):
        await store.count_active("ada", limit=1)
    await store.close()


@several_servers
async def test_a_deletion_that_waits_for_the_feed_blocks_no_holder_of_the_feed(
    store: SqlStore, database_url: str
) -> None:
    """Else a creation with the request id of the deleted job would wait indefinitely."""
    job = await finished(store, request_id="r")
    holder, observer = [await asyncpg.connect(database_url) for _ in range(2)]
    held_up = "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))"
    async with holder.transaction():
        await holder.execute("SELECT 1 FROM feed FOR UPDATE")
        deleting = asyncio.create_task(
            append(store, step(job, Delete(job_id=job.id, user_id="ada")))
        )
        async with asyncio.timeout(10):
            while await observer.fetchval(held_up, holder.get_server_pid()) == 0:
                pass
        await holder.execute("CREATE TEMP TABLE twins ON COMMIT DROP AS SELECT * FROM jobs")
        await holder.execute("UPDATE twins SET id = gen_random_uuid()")
        with pytest.raises(asyncpg.UniqueViolationError):
            async with holder.transaction():
                await holder.execute("INSERT INTO jobs SELECT * FROM twins")
    assert [change.deleted for change in await deleting] == [True]
    await holder.close()
    await observer.close()
