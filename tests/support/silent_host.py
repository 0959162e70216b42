"""A host that takes connections and never answers, as a machine that hangs does."""

import asyncio
from typing import Self


class SilentHost:
    """Counts the connections that it was given, and those that are still open."""

    def __init__(self) -> None:
        self.opened = 0
        self.open = 0
        self.address = ""
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Condition()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._hold, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self.left_alone()

    async def left_alone(self) -> None:
        """Wait until all connections have been closed by their clients."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.open == 0)

    async def _hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self.open += 1
        try:
            await reader.read(-1)  # until its end
        except ConnectionError:
            pass
        finally:
            writer.close()
            async with self._changed:
                self.open -= 1
                self._changed.notify_all()
