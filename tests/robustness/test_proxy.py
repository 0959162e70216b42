"""The proxy really does what its methods say; else the checker would test nothing."""

import asyncio
import random
import time
from collections.abc import AsyncIterator

import pytest

from tests.support.proxy import Proxy

MOMENT = 0.2
"""Seconds in which something that does not come would have come, a hundred times over."""


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """Stand before a server that sends everything back, and ends when its caller does."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(100):
                writer.write(data)
            writer.write(b"bye")
        except OSError:
            pass
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Proxy(f"127.0.0.1:{port}") as proxy:
        yield proxy
    server.close()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def echoed(self, words: bytes = b"hello") -> bool:
        self.writer.write(words)
        return await self.reader.readexactly(len(words)) == words


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[Client]:
    host, _, port = proxy.target.rpartition(":")
    client = Client(*await asyncio.open_connection(host, int(port)))
    assert await client.echoed()
    yield client
    client.writer.close()


async def test_the_proxy_delays_each_direction(proxy: Proxy, client: Client) -> None:
    proxy.delay = 0.1
    begin = time.monotonic()
    assert await client.echoed()
    assert time.monotonic() - begin >= 0.2
    proxy.delay = 0.0
    begin = time.monotonic()
    assert await client.echoed()
    assert time.monotonic() - begin < 0.2


async def test_the_proxy_cuts_connections(proxy: Proxy, client: Client) -> None:
    proxy.cut()
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await client.echoed()
    while proxy.connections:
        await asyncio.sleep(0)


async def test_the_proxy_holds_back_data_and_releases_it(proxy: Proxy, client: Client) -> None:
    proxy.swallow()
    waiting = asyncio.create_task(client.echoed())
    done, _ = await asyncio.wait([waiting], timeout=MOMENT)
    assert not done
    proxy.release()
    assert await waiting


async def test_the_proxy_half_closes_towards_one_side_only(proxy: Proxy, client: Client) -> None:
    class ToTheServer(random.Random):
        def choice(self, sides):
            return sides[1]

    proxy.half_close(ToTheServer())
    # The server has read to the end, and what it says then still comes.
    assert await client.reader.read() == b"bye"


async def test_the_proxy_closes_connections_while_the_server_is_unavailable(proxy: Proxy) -> None:
    async with Proxy("127.0.0.1:1") as lost:
        host, _, port = lost.target.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
