"""Bodies that do not arrive, and answers that nobody reads."""

import asyncio

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct, Value

from tests.robustness.abuse.attacker import attack
from tests.robustness.abuse.gateway.attacks import half_sent_bodies, unread
from tests.robustness.abuse.gateway.good_browser import browser_alone, good_browser
from tests.support.databases import sqlite_only
from tests.support.gateway_process import GatewayProcess
from tests.support.rpc_caller import Caller
from tests.support.server_process import MIB, ServerProcess


@pytest.mark.slow
@sqlite_only
async def test_half_sent_bodies_of_one_address_are_limited(gateway: GatewayProcess) -> None:
    alone = await browser_alone(gateway)
    options = {"connections": 1_500, "size": MIB}
    async with attack(half_sent_bodies, gateway.target, **options) as attacker:
        await attacker.begun()
        async with good_browser(gateway) as good:
            await asyncio.sleep(3)
    good.assert_served(alone)
    assert gateway.peak_memory < 300 * MIB


@pytest.mark.slow
@sqlite_only
@pytest.mark.parametrize(
    ("path", "connections"),
    [
        ("/v1/jobs?user_id=eve&view=FULL&page_size=1000", 40),
        ("/v1/jobs?user_id=eve&view=FULL&page_size=1000", 150),
        ("/v1/events?user_id=eve&view=FULL", 30),
    ],
    ids=["40 pages", "150 pages", "streams"],
)
async def test_unread_answers_of_one_address_are_limited(
    server: ServerProcess, gateway: GatewayProcess, path: str, connections: int
) -> None:
    blob = Struct(fields={"blob": Value(string_value="x" * 250_000)})
    async with grpc.aio.insecure_channel(server.target) as channel:
        for _ in range(30):
            await Caller(channel).job(user_id="eve", parameters=blob)
    alone = await browser_alone(gateway)
    options = {"path": path, "connections": connections}
    async with attack(unread, gateway.target, **options) as attacker:
        await attacker.begun()
        async with good_browser(gateway) as good:
            await asyncio.sleep(3)
        statuses = await attacker.report()
    assert statuses.keys() == {"200", "429"}
    good.assert_served(alone)
    assert gateway.peak_memory < 300 * MIB
