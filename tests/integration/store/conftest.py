"""What tests of the store share."""

from collections.abc import AsyncIterator

import pytest

from jobledger_server.cli.running import end_tasks
from tests.support.databases import SIMULATED, run_in_memory_too


@pytest.hookimpl(tryfirst=True)  # before the fixtures' own parameters are used
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    run_in_memory_too(metafunc, SIMULATED)


@pytest.fixture(autouse=True)
async def ended_tasks() -> AsyncIterator[None]:
    """Cancel the tasks that a failed test leaves: asyncio would wait for them indefinitely."""
    yield
    assert not await end_tasks()
