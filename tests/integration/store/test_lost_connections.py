"""Connections to PostgreSQL that break, one or all: the next batch still succeeds."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from jobledger_server.database.url import parse_url
from jobledger_server.domain.commands import Create
from jobledger_server.domain.job import JobId
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.database import Database, open_database
from jobledger_server.sql.postgresql import postgresql_dialect, postgresql_engines
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import StoreUnavailable
from tests.support.databases import several_servers
from tests.support.ledger_calls import apply
from tests.support.proxy import Proxy

CREATE = Create(user_id="ada", job_type="render")

CONNECTIONS = postgresql_engines.WRITERS
"""As many as the writers' pool has."""

PATIENCE_SECONDS = 1
"""How long a statement may take here; elsewhere it is COMMAND_SECONDS."""


@pytest.fixture
def confused(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The connections with a protocol error: the first one that is used."""
    seen: list[object] = []

    def confusing(ask: Callable[..., Any]) -> Callable[..., Any]:
        async def once(self: object, *arguments: object, **options: object) -> object:
            if not seen:
                seen.append(self)
                raise asyncpg.InternalClientError("another operation (2) is in progress")
            assert self not in seen, "asked again, though nobody knows what it would answer"
            return await ask(self, *arguments, **options)

        return once

    for name in ("fetch", "fetchval"):
        monkeypatch.setattr(asyncpg.Connection, name, confusing(getattr(asyncpg.Connection, name)))
    return seen


@several_servers
async def test_a_connection_with_a_protocol_error_is_replaced_and_the_batch_repeated(
    ledger: Ledger, confused: list[object]
) -> None:
    decision = await apply(ledger, CREATE)
    assert decision.changed
    assert len(confused) == 1


@several_servers
async def test_a_read_that_fails_with_a_protocol_error_is_reported_as_repeatable(
    ledger: Ledger, store: SqlStore, confused: list[object]
) -> None:
    with pytest.raises(StoreUnavailable) as refused:
        await store.read_jobs([JobId("j")], full=False)
    assert refused.value.stale
    assert await store.read_jobs([JobId("j")], full=False) == {}


async def open_all(database: Database) -> None:
    """Have all connections idle in the pool; the first one is the next that is taken."""
    connections = []
    for _ in range(CONNECTIONS):
        connections.append(await database.writer.connect().start())
        await connections[-1].execute(text("SELECT 1"))
    for connection in connections:
        await connection.close()


@pytest.fixture
async def behind_proxy(database_url: str) -> AsyncIterator[tuple[Database, Proxy]]:
    url = parse_url(database_url)
    async with Proxy(f"{url.host}:{url.port}") as proxy:
        host, _, port = proxy.target.rpartition(":")
        database = open_database(url.set(host=host, port=int(port)), seconds=PATIENCE_SECONDS)
        yield database, proxy
        await database.close()


@several_servers
async def test_unresponsive_connections_delay_no_command(
    behind_proxy: tuple[Database, Proxy],
) -> None:
    """One connection breaks, the others never answer again: none of them is waited for."""
    database, proxy = behind_proxy
    await open_all(database)
    proxy.swallow_open_ones()
    proxy.cut_oldest()
    async with Ledger(SqlStore(database), lambda _: None, max_waiting=10) as ledger:
        for _ in range(CONNECTIONS + 1):
            try:
                # A statement that is not answered, and the two seconds that SQLAlchemy gives
                # a connection to say good-bye, for one connection and for its replacement.
                async with asyncio.timeout(2 * PATIENCE_SECONDS + 4):
                    decision = await apply(ledger, CREATE)
            except StoreUnavailable:
                continue
            assert decision.changed
            return
    pytest.fail("no connection was replaced by a new one")


@several_servers
async def test_closing_does_not_wait_for_unresponsive_connections(
    behind_proxy: tuple[Database, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a limit each of them is waited for as long as a statement."""
    database, proxy = behind_proxy
    assert database.dialect.close_timeout == postgresql_dialect.CLOSE_SECONDS
    monkeypatch.setattr(database.dialect, "close_timeout", PATIENCE_SECONDS / 2)
    await open_all(database)
    proxy.swallow_open_ones()
    async with asyncio.timeout(PATIENCE_SECONDS * (CONNECTIONS - 1)):
        await SqlStore(database).close()


@several_servers
async def test_creations_whose_connection_broke_are_not_repeated(
    behind_proxy: tuple[Database, Proxy], database_url: str
) -> None:
    """They are one statement, which commits by itself: it may have been committed, as here."""
    database, proxy = behind_proxy
    holder, observer = [await asyncpg.connect(database_url) for _ in range(2)]
    held_up = "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY(pg_blocking_pids(pid))"
    async with Ledger(SqlStore(database), lambda _: None, max_waiting=10) as ledger:
        async with holder.transaction():
            await holder.execute("SELECT 1 FROM feed FOR UPDATE")
            creating = asyncio.create_task(apply(ledger, CREATE))
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await observer.fetchval(held_up, holder.get_server_pid()) == 0:
                    await asyncio.sleep(0.01)
            proxy.cut()
            with pytest.raises(StoreUnavailable) as refused:
                await creating
        assert not refused.value.stale
        async with asyncio.timeout(10):
            while await observer.fetchval("SELECT count(*) FROM changes") == 0:
                await asyncio.sleep(0.01)
        await apply(ledger, CREATE)
    assert await observer.fetchval("SELECT max(seq) FROM changes") == 2
    await holder.close()
    await observer.close()


@several_servers
async def test_a_repeated_creation_after_a_dead_connection_returns_its_job(
    ledger: Ledger, confused: list[object]
) -> None:
    """As after a restart of the database: the connections are dead, and answers were lost."""
    command = Create(user_id="ada", job_type="render", request_id="r")
    first = await apply(ledger, command)
    confused.clear()  # the next connection is, too
    again = await apply(ledger, command)
    assert again.job == first.job
    assert not again.changed
