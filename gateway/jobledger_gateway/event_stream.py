"""Server-Sent Events: their format, and a response that sends them.

A response holds one message at most: the next one is read from the service when this one has been
taken by the connection. A client that is slow therefore holds back its own watch and nothing else.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from math import ceil
from typing import Final

from starlette.types import Receive, Scope, Send

from jobledger.errors import JobledgerError
from jobledger_gateway.answers import parts
from jobledger_gateway.budget import Budget
from jobledger_gateway.limits import PART_BYTES
from jobledger_gateway.metrics import FIGURES
from jobledger_gateway.problems import HttpProblem, problem_of
from jobledger_gateway.upstream import count_error

RETRY_MS: Final = range(1_000, 3_000)
"""After how many milliseconds a browser reconnects: not all at once when a gateway stops."""

COMMENT: Final = b":\n\n"
"""Says that the stream is alive. No client shows it."""

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
        answers: counts the bytes of large events that are not sent yet.
        address: what they are counted for.
        heartbeat: seconds of silence after which a comment is sent, or a fifteenth later.
    """

    __slots__ = ("_address", "_answers", "_heartbeat", "_send", "_sent", "_stopped", "_writing")

    def __init__(
        self,
        stopped: "asyncio.Future[None]",
        answers: Budget,
        address: str,
        *,
        heartbeat: float,
    ) -> None:
        self._stopped = stopped
        self._answers = answers
        self._address = address
        self._heartbeat = heartbeat
        self._send: Send | None = None
        self._sent = 0.0
        # No comment between the parts of an event.
        self._writing = asyncio.Lock()

    async def write(self, chunk: bytes) -> None:
        """Send events, when the client has read enough of the earlier ones.

        Does nothing before `run`.

        Raises:
            HttpProblem: they are large, and too much is unsent already.
        """
        if self._send is None:
            return
        self._sent = asyncio.get_running_loop().time()
        if len(chunk) <= PART_BYTES:
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            return
        with self._answers.holding(self._address, len(chunk)):
            rest = parts(chunk)
            del chunk
            async with self._writing:
                while rest:
                    part = rest.pop()
                    await self._send(
                        {"type": "http.response.body", "body": part, "more_body": True}
                    )

    async def run(
        self,
        chunks: AsyncIterator[bytes],
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        headers: Sequence[tuple[bytes, bytes]] = HEADERS,
    ) -> None:
        """Send the response, whose body are these chunks."""
        await send({"type": "http.response.start", "status": 200, "headers": [*headers]})
        if scope["method"] != "HEAD":
            self._send = send
            retry = random.choice(RETRY_MS)  # noqa: S311
            FIGURES.streams += 1
            try:
                await self.write(f"retry: {retry}\n\n".encode())
                await self._until_end(chunks, receive)
            finally:
                FIGURES.streams -= 1
        self._send = None
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _until_end(self, chunks: AsyncIterator[bytes], receive: Receive) -> None:
        time = asyncio.get_running_loop().time
        pump = asyncio.create_task(self._pump(chunks))
        gone = asyncio.create_task(disconnected(receive))
        ends: set[asyncio.Future[None]] = {pump, gone, self._stopped}
        # Streams share the moments of their comments, so that the loop wakes for many at once. And
        # the service's own heartbeat, which becomes a comment, comes before.
        step = self._heartbeat / 15
        try:
            while True:
                due = ceil((self._sent + self._heartbeat) / step) * step
                done, _ = await asyncio.wait(
                    ends, timeout=max(due - time(), 0.0), return_when=asyncio.FIRST_COMPLETED
                )
                if done:
                    break
                if time() - self._sent >= self._heartbeat:
                    # Waits as long as the client reads nothing, and `pump` waits with it.
                    async with self._writing:
                        await self.write(COMMENT)
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
        except (HttpProblem, JobledgerError) as error:
            if isinstance(error, JobledgerError):
                count_error(error)
            await self.write(event(json.dumps(problem_of(error)).encode(), name="error"))


async def disconnected(receive: Receive) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
