"""What one address can make the gateway hold: docs/reference/limits.md."""

import asyncio
import ipaddress
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from google.protobuf.struct_pb2 import Struct, Value

from jobledger_gateway.budget import counted_address
from jobledger_gateway.limits import (
    ADDRESS_FULL_STREAMS,
    MAX_HEAD,
    MAX_PARAMETERS,
    MAX_QUERY,
    PAGE_BYTES,
    ROW_BYTES,
)
from tests.support.certificates import LOCALHOST_CERTIFICATE, LOCALHOST_KEY
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Event, Http
from tests.support.rpc_caller import Caller
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


async def test_a_connection_that_sends_no_request_is_closed(
    server: ServerProcess, start_gateway
) -> None:
    http = await start_gateway(server.target, head_timeout=0.2)
    async with connections(http, 3) as readers, asyncio.timeout(10):
        for reader in readers:
            await ended(reader)


async def test_a_tls_handshake_has_its_time(
    server: ServerProcess, start_gateway, tmp_path: Path
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(LOCALHOST_CERTIFICATE)
    key.write_bytes(LOCALHOST_KEY)
    pair = (str(cert), str(key))
    http = await start_gateway(server.target, certificate=pair, head_timeout=0.2)
    async with connections(http, 3) as readers, asyncio.timeout(10):
        for reader in readers:
            await ended(reader)


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
    http = await start_gateway(server.target, head_timeout=0.5, heartbeat=0.05)
    async with http.events("/v1/events?user_id=bounds") as events:
        assert (await events.news()).data == {"synced": True}
        for _ in range(20):
            assert await events.event() in (Event("comment"), Event("message", None, None))
    headers = {"Content-Type": "application/json", "Content-Length": "36"}
    reader, writer = await http.open("POST", "/v1/jobs", headers)
    for byte in b'{"userId":"ada","jobType":"in-parts"}'[:36]:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.02)
    assert b" 400 " in await reader.read()
    writer.close()


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


async def test_bodies_of_an_address_are_limited_in_bytes_until_their_calls_have_ended(
    server: ServerProcess, start_gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobledger_gateway.routes.calls.ADDRESS_BODY_BYTES", 20_000)
    http = await start_gateway(server.target)
    other = Http(http.port, address="127.0.0.2")
    large = {"userId": "bounds", "jobType": "a", "parameters": {"x": "x" * 9_000}}
    headers = {"Content-Type": "application/json", "Content-Length": "15000"}
    _, waiting = await http.open("POST", "/v1/jobs", headers, b"{")
    async with asyncio.timeout(10):
        while (refused := await http.post("/v1/jobs", large)).status == 201:
            pass  # until the gateway has read the head of the other one
    assert refused.problem["detail"] == "this address has too many bytes in bodies of requests"
    assert (refused.status, refused.headers["connection"]) == (429, "close")
    assert (await other.post("/v1/jobs", large)).status == 201
    waiting.close()
    async with asyncio.timeout(10):
        while (await http.post("/v1/jobs", large)).status != 201:
            pass


async def test_unread_answers_of_an_address_are_limited_in_bytes_and_dropped_as_they_are_read(
    server: ServerProcess, start_gateway, rpc: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobledger_gateway.app.ADDRESS_ANSWER_BYTES", PAGE_BYTES + ROW_BYTES)
    # The kernel ends connections of the tests that are not read for half a second.
    monkeypatch.setattr("jobledger_gateway.budget.REFUSAL_SECONDS", (0, 0))
    http = await start_gateway(server.target, send_buffer=16 * 1024)
    blob = Struct(fields={"blob": Value(string_value="x" * 255_000)})
    for _ in range(8):
        await rpc.CreateJob(user_id="unread", job_type="a", parameters=blob)
    path = "/v1/jobs?user_id=unread&view=FULL&page_size=8"
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # the kernel holds little
    connection.connect(("127.0.0.1", http.port))
    reader, writer = await asyncio.open_connection(sock=connection)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()
    refused = await http.get(path)
    assert refused.problem["detail"] == "this address has too many bytes in unread answers"
    assert (await Http(http.port, address="127.0.0.2").get(path)).status == 200
    writer.transport.resume_reading()
    page = json.loads(await reader.read())
    assert len(page["jobs"]) == 4  # about 1 MiB
    assert (await http.get(path)).status == 200
    writer.close()


async def test_large_events_that_are_not_read_end_a_stream_that_resumes(
    server: ServerProcess, start_gateway, rpc: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobledger_gateway.app.ADDRESS_ANSWER_BYTES", 100_000)
    http = await start_gateway(server.target)
    path = "/v1/events?user_id=large&view=FULL"
    async with http.events(path) as events:
        assert (await events.news()).data == {"synced": True}
        blob = Struct(fields={"blob": Value(string_value="x" * 200_000)})
        await rpc.CreateJob(user_id="large", job_type="a", parameters=blob)
        event = await events.news()
        assert (event.name, event.data["status"]) == ("error", 429)
        assert await events.event() is None


async def test_event_streams_in_the_view_full_have_a_limit_of_their_own(http: Http) -> None:
    path = "/v1/events?user_id=full&view=FULL"
    async with AsyncExitStack() as stack:
        for _ in range(ADDRESS_FULL_STREAMS):
            await stack.enter_async_context(http.events(path))
        refused = await http.get(path)
        assert (
            refused.problem["detail"] == "this address has too many event streams in the view FULL"
        )
        await stack.enter_async_context(http.events("/v1/events?user_id=full"))


async def test_a_large_event_comes_in_parts_with_no_heartbeat_between_them(
    server: ServerProcess, start_gateway, rpc: Caller
) -> None:
    http = await start_gateway(server.target, heartbeat=0.02)
    async with http.events("/v1/events?user_id=parts&view=FULL") as events:
        blob = Struct(fields={"blob": Value(string_value="x" * 250_000)})
        for _ in range(5):
            await rpc.CreateJob(user_id="parts", job_type="a", parameters=blob)
        seen = 0
        while seen < 5:
            await asyncio.sleep(0.1)  # a slow client: heartbeats are due meanwhile
            event = await events.event()
            if event.data and (changes := event.data.get("changes", {}).get("changes")):
                seen += len(changes)
                assert {len(each["job"]["parameters"]["blob"]) for each in changes} == {250_000}
