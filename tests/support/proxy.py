"""A TCP proxy that can treat what goes through it badly.

The idea is that of Shopify's Toxiproxy; a small one of our own needs no other program.
"""

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

CHUNK_BYTES = 65_536


@dataclass(eq=False, slots=True)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter

    def abort(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


class Proxy:
    """Stands before one server on an address of its own, also while that server is unavailable.

    `delay` is in seconds, for each piece of data in each direction. With a `source` the server
    sees connections from that address.
    """

    def __init__(self, target: str, *, source: str = "") -> None:
        host, _, port = target.rpartition(":")
        self._host, self._port = host, int(port)
        self._source = (source, 0) if source else None
        self._connections: dict[_Connection, None] = {}  # in the order of their opening
        self._open = asyncio.Event()
        self._open.set()
        self._holes: list[asyncio.Event] = []
        self._answers = asyncio.Event()
        self._answers.set()
        self._server: asyncio.Server | None = None
        self.delay = 0.0
        self.target = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.target = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for hole in (*self._holes, self._open, self._answers):
            hole.set()
        while self._connections:
            self.cut()
            await asyncio.sleep(0)

    def redirect(self, port: int) -> None:
        """Stand before the server at this port from now on."""
        self.cut()
        self._port = port

    @property
    def connections(self) -> int:
        return len(self._connections)

    def cut(self) -> None:
        """Break every connection off, without a word to either side."""
        for connection in tuple(self._connections):
            connection.abort()

    def cut_oldest(self) -> None:
        """Break the connection off that was opened first."""
        next(iter(self._connections)).abort()

    def half_close(self, rng: random.Random) -> None:
        """Say on every connection to one side that nothing more will come from the other."""
        for connection in tuple(self._connections):
            writer = rng.choice((connection.client, connection.server))
            with suppress(OSError, RuntimeError):  # it may be closing as it is
                writer.write_eof()

    def swallow(self) -> None:
        """Let nothing more through, without an error on either side: a black hole."""
        self._open.clear()

    def swallow_open_ones(self) -> None:
        """Let nothing through on the connections that are open now, to the end.

        So it is for a client whose server was replaced by another one at the same address.
        """
        self._open.clear()
        self._holes.append(self._open)
        self._open = asyncio.Event()
        self._open.set()

    def release(self) -> None:
        """Let through again what was held back, as a network does after a failure."""
        self._open.set()

    def swallow_answers(self) -> None:
        """Let through what clients send, and what makes a connection, but no answers."""
        self._answers.clear()

    def release_answers(self) -> None:
        """Let through the answers, those that were held back too."""
        self._answers.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(
                self._host, self._port, local_addr=self._source
            )
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(writer, server_writer)
        is_open = self._open
        self._connections[connection] = None
        try:
            async with asyncio.TaskGroup() as pumping:
                pumping.create_task(self._pump(reader, server_writer, is_open))
                pumping.create_task(self._pump_answers(server_reader, writer, is_open))
        except* (OSError, RuntimeError):
            pass  # broken off, or half-closed with something still to send
        finally:
            self._connections.pop(connection, None)
            connection.abort()

    async def _pump_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_open: asyncio.Event
    ) -> None:
        # The first piece has the settings of HTTP/2, without which a client sends no call.
        settings = await reader.read(CHUNK_BYTES)
        await asyncio.sleep(self.delay)
        await is_open.wait()
        writer.write(settings)
        await self._answers.wait()
        await self._pump(reader, writer, is_open)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_open: asyncio.Event
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self.delay:
                await asyncio.sleep(self.delay)
            await is_open.wait()
            writer.write(data)
            await writer.drain()
        with suppress(OSError, RuntimeError):
            writer.write_eof()
