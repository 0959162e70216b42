"""Serves a few pages to probes and scrapes, on a port of its own.

Each connection is one GET. How many there are, and how long each lasts, is bounded, so that no
client can keep others from the pages.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

MAX_CONNECTIONS: Final = 16
"""Connections at once. The next one ends the oldest."""

REQUEST_SECONDS: Final = 10.0
"""How long a connection lasts at most."""

MAX_HEAD_BYTES: Final = 8 * 1024


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK
    media_type: str = "text/plain; charset=utf-8"


Pages = Mapping[str, Callable[[], Page]]
"""By path, what makes the page."""


def parse_address(text: str) -> tuple[str, int]:
    """Return the host and the port of HOST:PORT. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not (host and colon and port.isdecimal() and int(port) < 2**16):
        raise ValueError(f"{text!r} is not HOST:PORT, with a port from 0 to 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


@asynccontextmanager
async def serving_pages(address: str, pages: Pages) -> AsyncIterator[int]:
    """Serve pages at HOST:PORT during the block; yield the port.

    Raises:
        OSError: nothing can be served there.
        ValueError: it is no HOST:PORT.
    """
    host, port = parse_address(address)
    connections: dict[asyncio.Task[None], None] = {}  # the oldest first

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(connections) >= MAX_CONNECTIONS:
            oldest = next(iter(connections))
            del connections[oldest]
            oldest.cancel()
        task = asyncio.create_task(_serve(pages, reader, writer))
        connections[task] = None
        task.add_done_callback(lambda done: connections.pop(done, None))

    server = await asyncio.start_server(accept, host, port, limit=MAX_HEAD_BYTES)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        open_ones = list(connections)
        for task in open_ones:
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)


async def _serve(pages: Pages, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(_answer(pages, head))
            writer.close()
            await writer.wait_closed()
    except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # the client is too slow, has gone, or sends something else
    finally:
        writer.transport.abort()


def _answer(pages: Pages, head: bytes) -> bytes:
    method, _, rest = head.decode("latin-1").partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    if method not in {"GET", "HEAD"}:
        page = Page(b"GET only\n", HTTPStatus.METHOD_NOT_ALLOWED)
    elif path not in pages:
        page = Page(f"there are: {', '.join(pages)}\n".encode(), HTTPStatus.NOT_FOUND)
    else:
        page = pages[path]()
    lines = (
        f"HTTP/1.1 {page.status.value} {page.status.phrase}",
        f"Content-Type: {page.media_type}",
        f"Content-Length: {len(page.body)}",
        "Cache-Control: no-store",
        "Connection: close",
        "",
        "",
    )
    body = b"" if method == "HEAD" else page.body
    return "\r\n".join(lines).encode("latin-1") + body
