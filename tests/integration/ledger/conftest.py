"""The ledger runs on the store in memory too: what it promises needs more of the store than its own
tests do.
"""

from collections.abc import AsyncIterator

import pytest

from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.sql_store import SqlStore
from tests.support.databases import NoOutages, run_in_memory_too


@pytest.hookimpl(tryfirst=True)  # before the fixtures' own parameters are used
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    run_in_memory_too(metafunc)


@pytest.fixture
async def other(store: SqlStore) -> AsyncIterator[Ledger]:
    """The ledger of another server on the same database."""
    async with Ledger(store, lambda _: None, max_waiting=10_000) as ledger:
        ledger.outages = NoOutages()
        yield ledger
