"""Connections that send no request, and heads that are too large."""

import asyncio
import ssl
from pathlib import Path

import pytest

from tests.robustness.abuse.attacker import attack
from tests.robustness.abuse.gateway.attacks import idle, requests, unfinished_handshakes
from tests.robustness.abuse.gateway.good_browser import browser_alone, good_browser
from tests.robustness.abuse.good_client import DEADLINE
from tests.support.certificates import LOCALHOST_CERTIFICATE, LOCALHOST_KEY
from tests.support.databases import sqlite_only
from tests.support.gateway_process import GatewayProcess
from tests.support.server_process import MIB, ServerProcess


@sqlite_only
async def test_a_few_idle_connections_take_nothing_from_others(server: ServerProcess) -> None:
    with GatewayProcess(server.target, ["--max-streams", "5"]) as gateway:
        async with attack(idle, gateway.target, connections=12) as attacker:
            await attacker.begun()
            async with good_browser(gateway, "127.0.0.1") as good:
                await asyncio.sleep(0.5)
            assert good.failed == []


@pytest.mark.slow
@sqlite_only
async def test_idle_connections_of_one_address_are_limited_and_closed(
    gateway: GatewayProcess,
) -> None:
    alone = await browser_alone(gateway)
    async with attack(idle, gateway.target, connections=5_000) as attacker:
        await attacker.begun()
        async with good_browser(gateway) as good:
            await asyncio.sleep(3)
        assert (await attacker.report())["open"] <= 1_050
    good.assert_served(alone)
    assert gateway.peak_memory < 300 * MIB


@sqlite_only
async def test_tls_handshakes_that_stop_are_limited_by_address(
    server: ServerProcess, tmp_path: Path
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(LOCALHOST_CERTIFICATE)
    key.write_bytes(LOCALHOST_KEY)
    arguments = ["--tls-cert", str(cert), "--tls-key", str(key), "--max-streams", "5"]
    trust = ssl.create_default_context(cafile=cert)
    with GatewayProcess(server.target, arguments) as gateway:
        host, _, port = gateway.target.rpartition(":")
        async with attack(unfinished_handshakes, gateway.target, connections=200) as attacker:
            await attacker.begun()
            async with asyncio.timeout(DEADLINE):
                reader, writer = await asyncio.open_connection(
                    host, port, local_addr=("127.0.0.2", 0), ssl=trust
                )
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                assert b" 200 " in await reader.read()
            writer.close()
            assert (await attacker.report())["open"] == 60


@pytest.mark.slow
@sqlite_only
@pytest.mark.parametrize(
    "request_head",
    [
        "GET /v1/jobs?" + "a=b&" * 15_000 + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\n" + "a: b\r\n" * 16_000 + "\r\n",
    ],
    ids=["query", "headers"],
)
async def test_large_heads_delay_no_other_client(
    gateway: GatewayProcess, request_head: str
) -> None:
    alone = await browser_alone(gateway)
    options = {"request": request_head, "a_second": 30, "connections": 4}
    async with attack(requests, gateway.target, **options) as attacker:
        await attacker.begun()
        async with good_browser(gateway) as good:
            await asyncio.sleep(3)
        assert (await attacker.report())["sent"] > 50
    good.assert_served(alone)
