"""What tests of the service's calls share."""

from collections.abc import Callable
from typing import Any

import pytest

from jobledger_server import app as app_module
from jobledger_server.app import App
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.tuning import Tuning
from tests.support.gated_store import GatedStore


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give servers in this process gates before and after what their stores do."""

    def gated(database: Database, *, tuning: Tuning) -> GatedStore:
        return GatedStore(SqlStore(database, tuning=tuning))

    monkeypatch.setattr(app_module, "SqlStore", gated)


@pytest.fixture
async def gated(gates: None, start: Callable[..., Any]) -> App:
    """A server in this process with such gates: its `store` has them."""
    return await start()
