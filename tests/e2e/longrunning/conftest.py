"""The service under test beside Jobledger's own: one server, one channel each."""

from collections.abc import AsyncIterator

import grpc
import pytest

from jobledger_server.app import App
from tests.e2e.longrunning.operations import Operations


@pytest.fixture
async def operations(app: App) -> AsyncIterator[Operations]:
    async with grpc.aio.insecure_channel(app.address) as channel:
        yield Operations(channel)
