"""PostgreSQL's driver loses its thread where the server goes away between two messages."""

import asyncpg
import pytest

from conftest import several_servers
from jobledger_server.domain.commands import Create
from jobledger_server.domain.model import JobId
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.store import SqlStore
from jobledger_server.store import StoreUnavailable

CREATE = Create(user_id="ada", job_type="render")


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
