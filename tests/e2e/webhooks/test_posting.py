"""One post: verified, bounded, and said of it no more than its status."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from jobledger_gateway.webhooks import addresses
from jobledger_gateway.webhooks.addresses import UNKNOWN, Resolver
from jobledger_gateway.webhooks.posting import Answer, Poster
from tests.e2e.webhooks.conftest import LOOPBACK
from tests.support.authority import Authority
from tests.support.webhook_receiver import Receiver


def poster(timeout: float = 10.0, tls: ssl.SSLContext | None = None) -> Poster:
    return Poster(Resolver(LOOPBACK), timeout, tls)


@asynccontextmanager
async def raw(answer: bytes, *, ends: bool = True) -> AsyncIterator[str]:
    """Answer each connection with these bytes; yield the URL."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(answer)
        if not ends:
            await done.wait()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        done.set()


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", Answer(204)),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\n\r\n", Answer(202)),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", Answer(200)),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"a" * 1_000_000, Answer(200)),
        (b"HTTP/1.1 307 No\r\nlocation: /x\r\n\r\n", Answer(307, "status 307")),
        (b"HTTP/1.1 503 No\r\n\r\nsecret", Answer(503, "status 503")),
        (
            b"HTTP/1.1 429 No\r\nretry-after: 7\r\n\r\n",
            Answer(429, "status 429", 7.0),
        ),
        (
            (
                b"HTTP/1.1 503 No\r\ndate: Sun, 01 Nov 2026 10:00:00 GMT\r\n"
                b"retry-after: Sun, 01 Nov 2026 10:01:00 GMT\r\n\r\n"
            ),
            Answer(503, "status 503", 60.0),
        ),
        (b"HTTP/1.1 503 No\r\nretry-after: soon\r\n\r\n", Answer(503, "status 503")),
        (
            (
                b"HTTP/1.1 503 No\r\ndate: Sun, 01 Nov 2026 10:00:00 GMT\r\n"
                b"retry-after: Sun, 01 Nov 9999999999 10:01:00 GMT\r\n\r\n"
            ),
            Answer(503, "status 503"),
        ),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000, Answer(failure="the answer is not HTTP/1.1")),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Answer(failure="the answer is not HTTP/1.1")),
        (b"", Answer(failure="no connection, or it broke")),
    ],
)
async def test_the_status_decides_and_the_rest_is_bounded(answer: bytes, outcome: Answer) -> None:
    async with raw(answer) as url:
        assert await poster().post(url, {}, b"{}") == outcome


async def test_a_receiver_that_never_answers_is_left() -> None:
    async with raw(b"HTTP/1.1 ", ends=False) as url:
        answer = await poster(timeout=0.3).post(url, {}, b"{}")
    assert answer.failure == "no answer within 0.3 s"


async def test_a_body_that_never_ends_does_not_undo_a_success() -> None:
    async with raw(b"HTTP/1.1 200 OK\r\n\r\nmore", ends=False) as url:
        assert await poster().post(url, {}, b"{}") == Answer(200)


@pytest.mark.parametrize(
    ("names", "trusted", "failure"),
    [
        ({"addresses": ("127.0.0.1",)}, True, ""),
        ({"dns": ("another.example",)}, True, "TLS: CERTIFICATE_VERIFY_FAILED"),
        ({"addresses": ("127.0.0.1",)}, False, "TLS: CERTIFICATE_VERIFY_FAILED"),
    ],
)
async def test_a_receiver_proves_its_name(
    tmp_path: Path,
    names: dict[str, tuple[str, ...]],
    trusted: bool,  # noqa: FBT001
    failure: str,
) -> None:
    authority = Authority()
    certificate, key = authority.issue(**names).write(tmp_path, "receiver")
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context()
    if trusted:
        trusting.load_verify_locations(cadata=authority.certificate.decode())
    async with Receiver(tls=serving) as receiver:
        headers = {"webhook-id": "1", "webhook-timestamp": "1"}
        answer = await poster(tls=trusting).post(receiver.url, headers, b"{}")
    assert answer.failure == failure
    assert len(receiver.succeeded) == (not failure)


@pytest.mark.parametrize(
    ("url", "failure"),
    [
        ("http://127.0.0.1:1/", "no connection, or it broke"),
        ("http://no-such-host.invalid/", UNKNOWN),
        ("https://faß.de/", "the URL cannot be used"),
    ],
)
async def test_a_receiver_that_is_not_there_is_a_failure(url: str, failure: str) -> None:
    assert (await poster().post(url, {}, b"{}")).failure == failure


async def test_behind_an_address_that_is_silent_the_next_one_is_called(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Linux drops what asks to connect to a socket whose queue of connections is full.
    # No other test has anything at 127.0.0.4, so the receiver's port is free there.
    silent = socket.create_server(("127.0.0.4", receiver.port), backlog=0)
    queued = socket.create_connection(silent.getsockname())

    def getaddrinfo(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{n}", 0)) for n in (4, 1)]

    monkeypatch.setattr(addresses.socket, "getaddrinfo", getaddrinfo)
    headers = {"webhook-id": "1", "webhook-timestamp": "1"}
    with silent, queued:
        url = f"http://two.example:{receiver.port}/"
        assert await poster(timeout=4.0).post(url, headers, b"{}") == Answer(204)
