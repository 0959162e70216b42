"""A relay of TCP connections that can be cut and blocked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class TcpLine:
    """Forwards connections to a target. See `tcp_line`.

    Attributes:
        target: What to connect to.
    """

    def __init__(self, beyond: str) -> None:
        self.target = ""
        self._host, _, self._port = beyond.rpartition(":")
        self._writers: list[asyncio.StreamWriter] = []
        self._passes = asyncio.Event()
        self._passes.set()

    def reset(self) -> None:
        """Cut all connections."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def block(self) -> None:
        """Forward nothing, and keep it."""
        self._passes.clear()

    def heal(self) -> None:
        """Go on after `block`."""
        self._passes.set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward a connection until one side closes it."""
        self._writers.append(writer)
        try:
            there, back = await asyncio.open_connection(self._host, int(self._port))
        except OSError:
            writer.transport.abort()
            return
        self._writers.append(back)
        await asyncio.gather(self._forward(reader, back), self._forward(there, writer))

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._passes.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def tcp_line(beyond: str) -> AsyncIterator[TcpLine]:
    """Yield a line to a target."""
    line = TcpLine(beyond)
    tasks: list[asyncio.Task[None]] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(line.connected(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    line.target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield line
    finally:
        server.close()
        line.heal()
        line.reset()
        await asyncio.gather(*tasks)
