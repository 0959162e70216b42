"""Commits that PostgreSQL does not answer, because its synchronous standby is away."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

import asyncpg
import pytest

from jobledger_server.database.url import parse_url
from jobledger_server.domain.commands import Create
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.database import open_database
from jobledger_server.sql.postgresql.postgresql_driver import COPY_FROM_ROWS
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import StoreUnavailable
from tests.support.databases import migrated
from tests.support.ledger_calls import apply
from tests.support.postgres_server import PostgresServer
from tests.support.store_writer import append, creation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
"""Counts the commits that wait for a standby."""

Write = Callable[[SqlStore], Awaitable[object]]


async def renew_epoch(store: SqlStore) -> None:
    await store.renew_epoch((await store.feed_head()).epoch)


WRITES: Mapping[str, Write] = {
    "a statement that commits by itself": lambda store: append(store, creation()),
    "a transaction": lambda store: append(store, *(creation() for _ in range(COPY_FROM_ROWS))),
    "a transaction of SQLAlchemy": renew_epoch,
}


class Primary:
    """A PostgreSQL whose synchronous standby can be away: it is a name that nobody has."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def ask(self, statement: str) -> tuple[object, ...]:
        """Run a statement in a session that begins now, and return its first row."""
        connection = await asyncpg.connect(self.url, server_settings={"statement_timeout": "0"})
        row = await connection.fetchrow(statement)
        await connection.close()
        return tuple(row or ())

    async def lose_standby(self) -> None:
        await self._set_standby("nobody")

    async def need_no_standby(self) -> None:
        await self._set_standby("")

    async def _set_standby(self, name: str) -> None:
        await self.ask(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
        await self.ask("SELECT pg_reload_conf()")
        while await self.ask("SHOW synchronous_standby_names") != (name,):
            pass
        # PostgreSQL's checkpointer tells all sessions, and reads what is set before a checkpoint.
        await self.ask("CHECKPOINT")

    async def visible(self) -> tuple[object, ...]:
        """Return what others see of the store."""
        return await self.ask("SELECT epoch, (SELECT count(*) FROM changes) FROM feed")

    async def until_waiting(self, count: int) -> None:
        """Wait until this many commits wait for the standby."""
        async with asyncio.timeout(10):
            while await self.ask(WAITING) != (count,):
                pass


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    server = PostgresServer(durable=False)
    yield server
    server.close()


@pytest.fixture
async def primary(server: PostgresServer) -> AsyncIterator[Primary]:
    url = await asyncio.to_thread(migrated, server.create_database())
    primary = Primary(url)
    yield primary
    await primary.need_no_standby()
    await primary.ask("ALTER ROLE u RESET statement_timeout")


@pytest.fixture
async def store(primary: Primary) -> AsyncIterator[SqlStore]:
    store = SqlStore(open_database(parse_url(primary.url), seconds=1))
    await store.verify_identity()
    await store.feed_head()
    yield store
    await store.close()


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_commit_that_is_not_answered_in_time_is_seen_by_nobody_before_the_standby_has_it(
    primary: Primary, store: SqlStore, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    before = await primary.visible()
    await primary.lose_standby()
    with pytest.raises(StoreUnavailable) as refused:
        await write(store)
    assert not refused.value.stale, "nobody may repeat it without knowing whether it was done"
    assert caplog.records == []
    await primary.until_waiting(1)
    assert await primary.visible() == before
    await primary.need_no_standby()
    await primary.until_waiting(0)
    assert await primary.visible() != before
    await write(store)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_commit_whose_caller_is_cancelled_is_seen_by_nobody_before_the_standby_has_it(
    primary: Primary, store: SqlStore, write: Write
) -> None:
    before = await primary.visible()
    await primary.lose_standby()
    writing = asyncio.ensure_future(write(store))
    await primary.until_waiting(1)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await primary.until_waiting(1)
    assert await primary.visible() == before
    await primary.need_no_standby()
    await primary.until_waiting(0)
    assert await primary.visible() != before
    await write(store)


async def test_after_an_unanswered_commit_no_transaction_begins_before_another_is_answered(
    primary: Primary, store: SqlStore
) -> None:
    """A repeated call would be answered from rows that the standby does not have."""
    await primary.lose_standby()
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            await append(store, creation())
    await primary.until_waiting(1)  # the first one: the others did not fill PostgreSQL's sessions
    await primary.need_no_standby()
    await append(store, creation())
    assert (await store.feed_head()).seq == 2


async def test_a_new_connection_reads_nothing_before_a_commit_of_its_own_is_answered(
    primary: Primary,
) -> None:
    """After a crash PostgreSQL shows what was committed and never reached the standby."""
    await primary.lose_standby()
    store = SqlStore(open_database(parse_url(primary.url), seconds=1))
    for read in (
        store.feed_head(),
        store.changes_after(0, limit=1),
        store.list_assets(creation().job.id, after=None, limit=1),
    ):
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            await read
    await primary.until_waiting(0)  # what was of no use any more was cancelled
    await primary.need_no_standby()
    assert (await store.feed_head()).seq == 0
    await store.close()


async def test_after_a_crash_a_repeated_creation_is_answered_when_the_standby_has_the_job(
    server: PostgresServer, primary: Primary, store: SqlStore
) -> None:
    command = Create(user_id="ada", job_type="render", request_id="r")
    other = SqlStore(open_database(parse_url(primary.url), seconds=1))
    await other.verify_identity()
    async with (
        Ledger(store, lambda _: None, max_waiting=10) as ledger,
        Ledger(other, lambda _: None, max_waiting=10) as elsewhere,
    ):
        await primary.lose_standby()
        with pytest.raises(StoreUnavailable):
            await apply(ledger, command)
        server.kill()
        await asyncio.to_thread(server.start)
        assert (await primary.visible())[1] == 1, "it is not on the standby"
        for each in (ledger, elsewhere):
            for _ in range(2):  # the first one finds its connection broken
                with pytest.raises(StoreUnavailable):
                    await apply(each, command)
        await primary.need_no_standby()
        for each in (ledger, elsewhere):
            assert not (await apply(each, command)).changed
    await other.close()


async def test_what_is_open_is_read_from_while_the_standby_is_away(
    primary: Primary, store: SqlStore
) -> None:
    await append(store, creation())
    await primary.lose_standby()
    with pytest.raises(StoreUnavailable):
        await append(store, creation())
    assert len((await store.changes_after(0, limit=9)).changes) == 1


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_statement_timeout_that_an_operator_set_ends_no_write(
    primary: Primary, write: Write
) -> None:
    await primary.ask("ALTER ROLE u SET statement_timeout = '300ms'")
    store = SqlStore(open_database(parse_url(primary.url), seconds=1))
    before = await primary.visible()
    holder = await asyncpg.connect(primary.url, server_settings={"statement_timeout": "0"})
    transaction = holder.transaction()
    await transaction.start()
    await holder.execute("SELECT 1 FROM feed FOR UPDATE")
    writing = asyncio.ensure_future(write(store))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(writing), 0.6)
    await transaction.rollback()
    await holder.close()
    await writing
    assert await primary.visible() != before
    await store.close()
