"""Server-Sent Events: their format, and a response that sends them.

A response holds one message at most: the next one is read from the service when this one has been
taken by the connection. A client that is slow therefore holds back its own watch and nothing else.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Final

from starlette.types import Receive, Scope, Send

RETRY_MS: Final = 2_000
"""After how many milliseconds a browser reconnects."""

_LINE_END: Final = re.compile("\r\n|\r|\n")

HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)


def event(data: str = "", *, name: str = "", event_id: str = "") -> bytes:
    """Format one event. Without data only its id counts, and no listener is called."""
    lines = []
    if event_id:
        lines.append(f"id: {event_id}\n")
    if name:
        lines.append(f"event: {name}\n")
    if data:
        lines += [f"data: {line}\n" for line in _LINE_END.split(data)]
    return ("".join(lines) + "\n").encode()


class EventStream:
    """Sends events until there are no more, the client is gone, or the gateway stops.

    Args:
        draining: is done when the gateway stops.
        heartbeat: seconds of silence after which a comment is sent.
        send_timeout: seconds that a client may read nothing.
    """

    def __init__(
        self, draining: "asyncio.Future[None]", *, heartbeat: float, send_timeout: float
    ) -> None:
        self._draining = draining
        self._heartbeat = heartbeat
        self._send_timeout = send_timeout
        self._send: Send | None = None
        self._sent = 0.0

    async def write(self, chunk: bytes) -> None:
        """Send events, or drop the client. Does nothing before `run`. Raises TimeoutError."""
        if self._send is None:
            return
        self._sent = asyncio.get_running_loop().time()
        async with asyncio.timeout(self._send_timeout):
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def run(
        self, chunks: AsyncIterator[bytes], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Send the response. Closes nothing of `chunks` but the reading of it."""
        await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS]})
        if scope["method"] != "HEAD":
            self._send = send
            await self.write(f"retry: {RETRY_MS}\n\n".encode())
            await self._until_end(chunks, receive)
        self._send = None
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _until_end(self, chunks: AsyncIterator[bytes], receive: Receive) -> None:
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = [
            asyncio.create_task(each) for each in (self._pump(chunks), _disconnected(receive))
        ]
        ends: set[asyncio.Future[None]] = {*tasks, self._draining}
        try:
            while True:
                silence = loop.time() - self._sent
                done, _ = await asyncio.wait(
                    ends,
                    timeout=max(self._heartbeat - silence, 0.001),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if done:
                    break
                if loop.time() - self._sent >= self._heartbeat:
                    await self.write(b":\n\n")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if not tasks[0].cancelled():
            tasks[0].result()

    async def _pump(self, chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
            await self.write(chunk)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
