"""A server to attack, in a process of its own. The form of a test of an attack:

    async def test_many_idle_connections(server: ServerProcess) -> None:
        alone = await served_alone(server.target)
        async with attack(idle_connections, server.target, count=900) as attacker:
            await attacker.begun()
            async with good_client(server.target) as good:
                await asyncio.sleep(3)
            report = await attacker.report()
        good.assert_served(alone)
        assert server.peak_memory < 300 * MIB

One that is judged by how others are served has the marker `slow`: no other test may run with it.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server_process import MANY_STREAMS, ServerProcess


@pytest.fixture
def server(database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, database=database_url) as server:
        yield server


@pytest.fixture
def proxied_server(database_url: str, tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, database=database_url, arguments=MANY_STREAMS) as server:
        yield server
