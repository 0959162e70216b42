"""A gateway to attack, in a process of its own, from 127.0.0.1. The good client has an address of
its own, unless a test says otherwise.
"""

from collections.abc import Iterator

import pytest

from tests.support.gateway_process import GatewayProcess
from tests.support.server_process import ServerProcess


@pytest.fixture
def gateway(server: ServerProcess) -> Iterator[GatewayProcess]:
    with GatewayProcess(server.target, ["--no-access-log"]) as gateway:
        yield gateway
