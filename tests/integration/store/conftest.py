"""What tests of the store share."""

from collections.abc import AsyncIterator

import pytest

from jobledger_server.cli.running import end_tasks


@pytest.fixture(autouse=True)
async def ended_tasks() -> AsyncIterator[None]:
    """End what a test that fails leaves behind: asyncio would wait for it without end."""
    yield
    assert not await end_tasks()
