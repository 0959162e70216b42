"""Connections at the maximum age: the server sends GOAWAY, and no call fails because of it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from tests.support.http2 import ACK, GOAWAY, PREFACE, SETTINGS, connect, frame
from tests.support.rpc_caller import calling
from tests.support.server_process import ServerProcess

AGE = "1s"


@pytest.fixture
def aging(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path, arguments=["--max-watch-age", AGE]) as server:
        yield server


def test_a_connection_of_the_maximum_age_is_sent_goaway(aging: ServerProcess) -> None:
    with connect(aging.target) as connection, connection.makefile("rb") as received:
        connection.settimeout(20)
        connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
        while True:
            head = received.read(9)
            assert head, "closed without GOAWAY"
            payload = received.read(int.from_bytes(head[:3], "big"))
            if head[3] == GOAWAY:
                break
            if head[3] == SETTINGS and not head[4] & ACK:
                connection.sendall(frame(SETTINGS, ACK, 0))
    assert int.from_bytes(payload[4:8], "big") == 0  # NO_ERROR
    assert payload[8:] == b"max_age"


async def test_a_client_keeps_working_while_its_connections_reach_their_age(
    aging: ServerProcess,
) -> None:
    me = psutil.Process()
    connections: set[int] = set()
    async with calling(aging.target) as call:

        async def create() -> None:
            while len(connections) < 3:
                await call.job()  # fails the test where the call fails

        async def observe() -> None:
            while len(connections) < 3:
                for each in me.net_connections("tcp"):
                    if (
                        each.raddr
                        and each.raddr.port == aging.port
                        and each.status == "ESTABLISHED"
                    ):
                        connections.add(each.laddr.port)
                await asyncio.sleep(0.05)

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(create())
            group.create_task(observe())
