"""A request whose path is not UTF-8 does not stop the server: docs/decisions/0036."""

import pytest

from tests.robustness.abuse.attacker import attack
from tests.robustness.abuse.good_client import good_client, served_alone
from tests.robustness.abuse.http2_attacks import MALFORMED_PATHS, malformed_paths
from tests.support.databases import sqlite_only
from tests.support.server_process import ServerProcess


@pytest.mark.promise(number=77)
@sqlite_only
async def test_a_path_that_is_not_utf8_does_not_stop_the_server(server: ServerProcess) -> None:
    async with (
        good_client(server.target) as good,
        attack(malformed_paths, server.target) as attacker,
    ):
        await attacker.begun()
        for _ in range(3):  # each over a new connection
            await served_alone(server.target, 0.2)
        assert (await attacker.report()) == {"sent": len(MALFORMED_PATHS)}
    assert good.failed == []
