"""Whether a gateway is ready: it says so at its start, at /readyz, and to a command."""

import asyncio
import logging
import os
import subprocess
from pathlib import Path

import pytest

from jobledger_gateway.readiness import KEPT_SECONDS
from tests.support import forked
from tests.support.certificates import LOCALHOST_CERTIFICATE, LOCALHOST_KEY
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Http
from tests.support.server_process import ServerProcess


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = (each.getMessage() for each in caplog.records if each.name == "jobledger.gateway")
    return [line.split()[0] for line in lines]


async def until_ready(http: Http) -> None:
    async with asyncio.timeout(20):
        while (await http.get("/readyz")).status != 200:
            await asyncio.sleep(KEPT_SECONDS)


async def test_it_is_ready_while_the_service_answers_and_says_so_at_its_start(
    tmp_path: Path, start_gateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = ServerProcess(tmp_path)
    http = await start_gateway(server.target, hosts=("a.example",))
    probe = await http.get("/readyz", Host="10.1.2.3:8080")  # as a platform does, by address
    assert probe.problem["status"] == 503
    assert (await http.get("/healthz")).status == 200
    async with server:
        await until_ready(http)
        async with asyncio.timeout(20):
            while len(said(caplog)) < 2:
                await asyncio.sleep(0.1)
    assert said(caplog) == ["service_unavailable", "service_answers"]


def asked(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    address = url.rpartition("/")[2]
    environment = {**os.environ, "JOBLEDGER_GATEWAY_LISTEN": address}
    return forked.run("jobledger-gateway", *arguments, "health", env=environment)


def test_a_command_asks_whether_it_is_ready(server: ServerProcess, tmp_path: Path) -> None:
    with GatewayProcess(server.target) as gateway:
        ready = asked(gateway.url)
        assert (ready.returncode, ready.stdout) == (0, "SERVING\n")
    stopped = asked(gateway.url)
    assert (stopped.returncode, "refused" in stopped.stderr) == (1, True)
    with GatewayProcess("127.0.0.1:1") as gateway:
        alone = asked(gateway.url)
    assert (alone.returncode, alone.stdout) == (1, "")

    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(LOCALHOST_CERTIFICATE)
    key.write_bytes(LOCALHOST_KEY)
    pair = ("--tls-cert", str(cert), "--tls-key", str(key))
    with GatewayProcess(server.target, pair) as gateway:
        assert asked(gateway.url, *pair).returncode == 0
