"""What the parts of a stream of Work need: a ledger whose commits go to a hub, and held jobs."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.watch.change_buffer import ChangeBuffer
from jobledger_server.watch.held_jobs import HeldJobs
from jobledger_server.watch.hub import WatchHub
from tests.support.databases import empty_database


@pytest.fixture(params=["sqlite"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return empty_database(request, tmp_path)


@pytest.fixture
def hub() -> WatchHub:
    return WatchHub(ChangeBuffer(0), lambda: None, max_watches=1)


@pytest.fixture
async def ledger(store: SqlStore, hub: WatchHub) -> AsyncIterator[Ledger]:
    async with Ledger(store, hub.publish, max_waiting=100) as ledger:
        yield ledger


@pytest.fixture
def held(hub: WatchHub) -> Iterator[HeldJobs]:
    with hub.holding(lambda: None) as held:
        yield held
