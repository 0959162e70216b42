"""A request whose path is not UTF-8 does not stop the server.

From grpcio 1.84 on it does: grpc.aio decodes the header `:path` as UTF-8 in the loop that accepts
calls (`_server_main_loop`), where nothing handles the error. Then nothing listens on the port, but
the process stays alive. The request needs no token, and Envoy passes it on by default. This was
seen with 1.84.2 and 1.85.3, not with 1.80.0, 1.82.3 and 1.83.2.

To lift the limit `grpcio<1.84` in server/pyproject.toml, renew the lock files with a newer
version and see this test pass.
"""

from tests.robustness.abuse.attacker import attack
from tests.robustness.abuse.good_client import good_client, served_alone
from tests.robustness.abuse.http2_attacks import MALFORMED_PATHS, malformed_paths
from tests.support.databases import sqlite_only
from tests.support.server_process import ServerProcess


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
