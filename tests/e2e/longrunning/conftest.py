"""The service under test and Jobledger's own: one server, one channel each."""

from collections.abc import Iterator

import grpc
import pytest

from tests.e2e.longrunning.operations import Operations
from tests.support.server_process import ServerProcess


@pytest.fixture
def operations(channel: grpc.aio.Channel) -> Operations:
    return Operations(channel)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Return a server of the module's own."""
    with ServerProcess(tmp_path_factory.mktemp("server")) as server:
        yield server
