"""What one address can make the gateway hold: docs/reference/limits.md."""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from jobledger_gateway.budget import counted_address
from jobledger_gateway.limits import MAX_HEAD, MAX_PARAMETERS, MAX_QUERY
from tests.support.certificates import LOCALHOST_CERTIFICATE, LOCALHOST_KEY
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Event, Http
from tests.support.server_process import ServerProcess

JOBS = "/v1/jobs?user_id=ada"


@asynccontextmanager
async def connections(
    http: Http, count: int, address: str = "127.0.0.1"
) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Connect without sending anything. What is read is the end."""
    opened = [
        await asyncio.open_connection("127.0.0.1", http.port, local_addr=(address, 0))
        for _ in range(count)
    ]
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.close()


async def ended(reader: asyncio.StreamReader) -> None:
    """Return when the gateway has closed a connection."""
    with suppress(ConnectionError):
        assert await reader.read() == b""


@pytest.mark.promise(number=67)
async def test_a_connection_that_sends_no_request_is_closed(
    server: ServerProcess, start_gateway
) -> None:
    http = await start_gateway(server.target, head_timeout=0.2)
    async with connections(http, 3) as readers, asyncio.timeout(10):
        for reader in readers:
            await ended(reader)


@pytest.mark.promise(number=67)
@pytest.mark.parametrize("requests_before", [0, 1])
async def test_a_head_that_comes_in_pieces_has_its_time(
    server: ServerProcess, start_gateway, requests_before: int
) -> None:
    http = await start_gateway(server.target, head_timeout=0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
    for _ in range(requests_before):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b'{"status":"ok"}')
    writer.write(b"GET / HTTP/1.1\r\n")
    closed = asyncio.create_task(ended(reader))
    async with asyncio.timeout(10):
        while not closed.done():
            writer.write(b"a: b\r\n")
            await asyncio.sleep(0.02)
    await closed
    writer.close()


async def test_requests_under_way_have_no_time_limit_of_a_head(
    server: ServerProcess, start_gateway
) -> None:
    http = await start_gateway(server.target, head_timeout=0.1, heartbeat=0.05)
    async with http.events("/v1/events?user_id=no-head") as events:
        assert (await events.news()).data == {"synced": True}
        for _ in range(10):
            assert await events.event() in (Event("comment"), Event("message", None, None))
    headers = {"Content-Type": "application/json", "Content-Length": "36"}
    reader, writer = await http.open("POST", "/v1/jobs", headers)
    for byte in b'{"userId":"ada","jobType":"in-parts"}'[:36]:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.02)
    assert b" 400 " in await reader.read()
    writer.close()


@pytest.mark.promise(number=67)
async def test_connections_of_an_address_are_limited_those_of_a_proxy_are_not(
    server: ServerProcess, start_gateway
) -> None:
    most = {"max_streams": 100, "max_address_streams": 1}
    http = await start_gateway(server.target, **most)
    async with connections(http, 52), connections(http, 1) as beyond:
        await ended(*beyond)
        other = Http(http.port, address="127.0.0.2")
        assert (await other.get(JOBS)).status == 200
    proxies = (ipaddress.ip_network("127.0.0.1"),)
    http = await start_gateway(server.target, proxies=proxies, **most)
    async with connections(http, 60):
        assert (await http.get(JOBS)).status == 200


async def test_probes_are_answered_when_there_are_too_many_connections_and_by_any_name(
    server: ServerProcess, start_gateway
) -> None:
    http = await start_gateway(server.target, max_streams=1, hosts=("localhost", "127.0.0.1"))
    prober = Http(http.port, address="127.0.0.3")
    async with connections(http, 52, "127.0.0.1"), connections(http, 51, "127.0.0.2"):
        refused = await prober.get(JOBS)
        assert (refused.problem["status"], refused.headers["connection"]) == (503, "close")
        assert (await prober.get("/healthz", Host="10.1.2.3:8080")).json() == {"status": "ok"}
    assert (await prober.get(JOBS, Host="10.1.2.3:8080")).status == 421


async def test_a_large_head_is_refused_before_it_is_parsed(http: Http) -> None:
    fits = "labels.a=" + "x" * (MAX_QUERY - len("labels.a="))
    assert (await http.get(f"/v1/jobs?{fits}")).problem["reason"] == "INVALID_FIELD"
    assert (await http.get(f"/v1/jobs?{fits}x")).problem["status"] == 414
    many = "&".join(["statuses=FAILED"] * MAX_PARAMETERS)
    assert (await http.get(f"/v1/jobs?{many}")).status == 400
    assert (await http.get(f"/v1/jobs?{many}&a=b")).problem["status"] == 414
    assert (await http.get("/healthz", A="x" * (MAX_HEAD - 500))).status == 200
    assert (await http.get("/healthz", A="x" * MAX_HEAD)).problem["status"] == 431


@pytest.mark.parametrize(
    "ahead", ["", "POST /v1/jobs HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"]
)
async def test_a_head_of_any_length_is_not_read_to_its_end(http: Http, ahead: str) -> None:
    """Also behind a request that is still being answered, when nothing is read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
    writer.write(f"{ahead}GET /healthz HTTP/1.1\r\nHost: a\r\n".encode() + b"a: b\r\n" * 30_000)
    writer.write(b"\r\n")
    try:
        answers = await reader.read()
    except ConnectionError:
        answers = b""  # the rest of the head was not read
    assert b" 200 " not in answers
    writer.close()


def test_an_address_is_the_same_over_ipv6_and_a_network_of_ipv6_is_one() -> None:
    assert counted_address("::ffff:192.0.2.1") == counted_address("192.0.2.1") == "192.0.2.1"
    assert counted_address("2001:db8::1") == counted_address("2001:db8::ffff:1")
    assert counted_address("2001:db8::1") != counted_address("2001:db8:0:1::1")


async def test_the_bounds_hold_over_tls(server: ServerProcess, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(LOCALHOST_CERTIFICATE)
    key.write_bytes(LOCALHOST_KEY)
    arguments = ["--tls-cert", str(cert), "--tls-key", str(key)]
    context = ssl.create_default_context(cadata=LOCALHOST_CERTIFICATE.decode())
    with GatewayProcess(server.target, arguments) as gateway:
        port = int(gateway.target.rpartition(":")[2])
        for size, status in ((100, b" 200 "), (12_000, b" 200 "), (17_000, b" 431 ")):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname="localhost"
            )
            head = (
                f"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\na: {'x' * size}\r\n\r\n"
            )
            writer.write(head.encode())
            assert status in await reader.read()
            writer.close()
