"""What tests of the store share."""

from collections.abc import AsyncIterator

import pytest

from jobledger_server.cli.running import end_tasks
from tests.support.databases import SIMULATED, run_in_memory_too

ON_SIMULATED = {"test_store", "test_job_cache", "test_giving_up"}
"""The modules that run on a world's SQLite too: what the others test is the same SQL there."""


@pytest.hookimpl(tryfirst=True)  # before the fixtures' own parameters are used
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    more = [SIMULATED] if metafunc.definition.path.stem in ON_SIMULATED else []
    run_in_memory_too(metafunc, *more)


@pytest.fixture(autouse=True)
async def ended_tasks() -> AsyncIterator[None]:
    """Cancel the tasks that a failed test leaves: asyncio would wait for them indefinitely."""
    yield
    assert not await end_tasks()
