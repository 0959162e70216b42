"""The metrics of the gateway, scraped as Prometheus does."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from jobledger.core import status_server
from jobledger_gateway.metrics import METRICS
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Http
from tests.support.ports import free_port
from tests.support.scraping import read_page, scraped
from tests.support.server_process import ServerProcess


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
async def http(server: ServerProcess, address: str) -> AsyncIterator[Http]:
    """Call a gateway that serves its metrics."""
    with GatewayProcess(server.target, ["--metrics", address, "--max-streams", "70"]) as gateway:
        yield Http(int(gateway.url.rpartition(":")[2]))


async def test_a_gateway_has_the_metrics_that_are_declared_and_no_others(
    http: Http, address: str
) -> None:
    """So the reference, whose table is made of the declarations, is true."""
    types = re.findall(r"^# TYPE (\S+) (\S+)$", await read_page(address), re.MULTILINE)
    assert {pair for pair in types if not pair[0].startswith("process_")} == {
        (metric.name, metric.kind) for metric in METRICS
    }
    assert "process_resident_memory_bytes" in await scraped(address)


async def test_streams_refusals_and_errors_of_the_service_are_counted(
    http: Http, address: str
) -> None:
    async with http.events("/v1/events?user_id=metrics") as events:
        await events.news()
        figures = await scraped(address)
    assert figures["jobledger_gateway_streams"] == 1
    assert figures["jobledger_gateway_streams_max"] == 70
    async with asyncio.timeout(30):
        while (await scraped(address))["jobledger_gateway_streams"]:
            await asyncio.sleep(0.02)
    await http.get("/nothing")
    await http.get("/v1/jobs/none?user_id=metrics")
    await http.get("/v1/jobs/none/events?user_id=metrics")
    figures = await scraped(address)
    assert figures['jobledger_gateway_refused_total{status="404"}'] == 1
    assert figures['jobledger_gateway_upstream_errors_total{code="NOT_FOUND"}'] == 2


async def test_clients_that_send_nothing_keep_nobody_from_the_metrics(
    http: Http, address: str
) -> None:
    silent = [
        await asyncio.open_connection(*address.split(":"))
        for _ in range(2 * status_server.MAX_CONNECTIONS)
    ]
    assert "jobledger_gateway_streams" in await scraped(address)
    for _, writer in silent:
        writer.close()
