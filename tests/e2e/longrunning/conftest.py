"""The service under test and Jobledger's own: one server, one channel each."""

from collections.abc import AsyncIterator, Iterator

import grpc
import pytest

from jobledger_server.app import App
from tests.e2e.longrunning.operations import Operations
from tests.support.server_process import ServerProcess


@pytest.fixture
async def operations(app: App) -> AsyncIterator[Operations]:
    async with grpc.aio.insecure_channel(app.address) as channel:
        yield Operations(channel)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Return a server of the module's own."""
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server
