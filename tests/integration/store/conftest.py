"""What tests of the store share."""

from collections.abc import AsyncIterator

import pytest

from jobledger_server.cli.running import end_tasks


@pytest.fixture(autouse=True)
async def ended_tasks() -> AsyncIterator[None]:
    """Cancel the tasks that a failed test leaves: asyncio would wait for them indefinitely."""
    yield
    assert not await end_tasks()
