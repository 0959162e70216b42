"""A request whose path is not UTF-8 does not stop the server: docs/decisions/0036."""

from collections.abc import Mapping

import pytest

from tests.robustness.abuse.attacker import attack, begin
from tests.robustness.abuse.good_client import good_client, served_alone
from tests.support.databases import sqlite_only
from tests.support.http2 import END_HEADERS, END_STREAM, HEADERS, Connection, frame, request_headers
from tests.support.server_process import ServerProcess

PATHS = (b"/\xff", b"/jobledger.v1.JobService/\xff", b"\xff", b"/\xc3\x28/GetJob", b"")


def malformed_paths(target: str) -> Mapping[str, object]:
    for path in PATHS:
        connection = Connection(target)
        headers = request_headers(path)
        connection.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, headers))
        connection.closed.wait(0.2)
    begin()
    return {"sent": len(PATHS)}


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
        assert (await attacker.report()) == {"sent": len(PATHS)}
    assert good.failed == []
