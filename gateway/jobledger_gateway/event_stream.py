"""Server-Sent Events: their format, and a response that sends them.

A response holds one message at most: the next one is read from the service when this one has been
taken by the connection. A client that is slow therefore holds back its own watch and nothing else.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Final

from starlette.types import Receive, Scope, Send

from jobledger_gateway.answers import parts
from jobledger_gateway.budget import Holding
from jobledger_gateway.metrics import FIGURES
from jobledger_gateway.problems import HttpProblem, problem_of

RETRY_MS: Final = range(1_000, 3_000)
"""After how many milliseconds a browser reconnects: not all at once when a gateway stops."""

HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would wait for more
)


def event(data: bytes = b"", *, name: str = "", event_id: str = "") -> bytes:
    """Format one event, whose data is JSON in one line. Without data only its id counts."""
    head = (f"id: {event_id}\n" if event_id else "") + (f"event: {name}\n" if name else "")
    return b"".join((head.encode(), b"data: ", data, b"\n\n") if data else (head.encode(), b"\n"))


class EventStream:
    """Sends events until there are no more, the client is gone, or the gateway stops.

    Args:
        stopped: is done when the gateway stops; of this stream alone.
        held: what counts for events that are not sent yet.
        heartbeat: seconds of silence after which a comment is sent.
    """

    def __init__(self, stopped: "asyncio.Future[None]", held: Holding, *, heartbeat: float) -> None:
        self._stopped = stopped
        self._held = held
        self._heartbeat = heartbeat
        self._send: Send | None = None
        self._sent = 0.0
        self._writing = asyncio.Lock()
        """No comment between the parts of an event."""

    async def write(self, chunk: bytes) -> None:
        """Send events, when the client has read enough of the earlier ones.

        Does nothing before `run`.

        Raises:
            HttpProblem: they are large, and too much is unsent already.
        """
        send = self._send
        if send is None:
            return
        self._sent = asyncio.get_running_loop().time()
        rest = parts(chunk)
        large = len(chunk) if len(rest) > 1 else 0
        del chunk
        self._held.take(large)
        try:
            async with self._writing:
                while rest:
                    part = rest.pop()
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        finally:
            self._held.give_back(large)

    async def run(
        self, chunks: AsyncIterator[bytes], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Send the response, whose body are these chunks."""
        await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS]})
        if scope["method"] != "HEAD":
            self._send = send
            retry = random.choice(RETRY_MS)  # noqa: S311
            with FIGURES.stream():
                await self.write(f"retry: {retry}\n\n".encode())
                await self._until_end(chunks, receive)
        self._send = None
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _until_end(self, chunks: AsyncIterator[bytes], receive: Receive) -> None:
        time = asyncio.get_running_loop().time
        pump = asyncio.create_task(self._pump(chunks))
        gone = asyncio.create_task(_disconnected(receive))
        ends: set[asyncio.Future[None]] = {pump, gone, self._stopped}
        try:
            while True:
                seconds = self._sent + self._heartbeat - time()
                done, _ = await asyncio.wait(
                    ends, timeout=max(seconds, 0.0), return_when=asyncio.FIRST_COMPLETED
                )
                if done:
                    break
                if time() - self._sent >= self._heartbeat:
                    # Waits as long as the client reads nothing, and `pump` waits with it.
                    await self.write(b":\n\n")
        finally:
            pump.cancel()
            gone.cancel()
            await asyncio.wait({pump, gone})
        if not pump.cancelled():
            pump.result()

    async def _pump(self, chunks: AsyncIterator[bytes]) -> None:
        try:
            async for chunk in chunks:
                await self.write(chunk)
        except HttpProblem as problem:
            await self.write(event(json.dumps(problem_of(problem)).encode(), name="error"))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
