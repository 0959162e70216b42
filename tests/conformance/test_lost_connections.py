"""Connections to PostgreSQL that break, one or all: the next batch is done all the same."""

import asyncio
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest
from sqlalchemy import text

from conftest import several_servers
from jobledger_server.domain.commands import Create
from jobledger_server.domain.model import JobId
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql import postgresql
from jobledger_server.sql.engine import open_database, parse_url
from jobledger_server.sql.store import SqlStore
from jobledger_server.store import StoreUnavailable
from robustness.checker.proxy import Proxy

CREATE = Create(user_id="ada", job_type="render")

CONNECTIONS = 8
"""As many as the pool has."""

PATIENCE_SECONDS = 1
"""How long a statement may take here; elsewhere it is COMMAND_SECONDS."""


@pytest.fixture
def confused(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The connections that were confused: the first one that is asked anything."""
    seen: list[object] = []
    fetch = asyncpg.Connection.fetch

    async def once(self: object, *arguments: object, **options: object) -> object:
        if not seen:
            seen.append(self)
            raise asyncpg.InternalClientError("another operation (2) is in progress")
        assert self not in seen, "asked again, though nobody knows what it would answer"
        return await fetch(self, *arguments, **options)

    monkeypatch.setattr(asyncpg.Connection, "fetch", once)
    return seen


@several_servers
async def test_a_confused_connection_is_let_go_and_the_batch_done_by_another(
    ledger: Ledger, confused: list[object]
) -> None:
    decision = await ledger.apply(CREATE)
    assert decision.changed
    assert len(confused) == 1


@several_servers
async def test_a_read_by_a_confused_connection_says_that_it_can_be_repeated(
    ledger: Ledger, store: SqlStore, confused: list[object]
) -> None:
    with pytest.raises(StoreUnavailable) as refused:
        await store.read_jobs([JobId("j")])
    assert refused.value.stale
    assert await store.read_jobs([JobId("j")]) == {}


async def open_all(store: SqlStore, opened: Callable[[], None] = lambda: None) -> None:
    """Have all connections at rest in the pool; the first one is the next that is taken."""
    connections = []
    for _ in range(CONNECTIONS):
        connections.append(await store._database.reader.connect().start())
        await connections[-1].execute(text("SELECT 1"))
        opened()
    for connection in connections:
        await connection.close()


@pytest.fixture
async def behind_proxy(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[SqlStore, Proxy]]:
    monkeypatch.setattr(postgresql, "COMMAND_SECONDS", PATIENCE_SECONDS)
    url = parse_url(database_url)
    async with Proxy(f"{url.host}:{url.port}") as proxy:
        host, _, port = proxy.target.rpartition(":")
        store = SqlStore(open_database(url.set(host=host, port=int(port))))
        yield store, proxy
        await store.close()


@several_servers
async def test_peers_that_are_dead_without_a_word_hold_up_nothing(
    behind_proxy: tuple[SqlStore, Proxy],
) -> None:
    """One connection breaks, the others never answer again: none of them is waited for."""
    store, proxy = behind_proxy
    first = []
    await open_all(store, lambda: first.extend(() if first else proxy._connections))
    proxy.swallow_open_ones()
    first[0].abort()
    async with Ledger(store, lambda _: None, max_waiting=10) as ledger:
        for _ in range(CONNECTIONS + 1):
            try:
                # A statement that is not answered, and the two seconds that SQLAlchemy gives
                # a connection to say good-bye, for one connection and for its replacement.
                async with asyncio.timeout(2 * PATIENCE_SECONDS + 4):
                    decision = await ledger.apply(CREATE)
            except StoreUnavailable:
                continue
            assert decision.changed
            return
    pytest.fail("no connection was replaced by a new one")


@several_servers
async def test_the_end_waits_for_no_peer_that_is_dead_without_a_word(
    behind_proxy: tuple[SqlStore, Proxy],
) -> None:
    store, proxy = behind_proxy
    await open_all(store)
    proxy.swallow_open_ones()
    async with asyncio.timeout(postgresql.FAREWELL_SECONDS + 2):
        await store.close()
