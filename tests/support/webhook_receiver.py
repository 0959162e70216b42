"""A receiver of webhooks: a real HTTP server that answers what a test wants.

It verifies signatures by itself, as the specification of Standard Webhooks says and without the
code that makes them.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

import h11


@dataclass(frozen=True)
class Received:
    """A request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> Any:
        return json.loads(self.body)

    @property
    def job_id(self) -> str:
        return self.event["subject"]

    @property
    def version(self) -> int:
        return int(self.event["data"]["transition"]["version"])

    def is_signed(self, secret: str) -> bool:
        """Whether the signature is that of the specification."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        text = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        digest = hmac.new(key, text, hashlib.sha256).digest()
        return self.headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


Headers = list[tuple[str, str]]
Answering = Callable[[Received], Awaitable[int | tuple[int, Headers]]]


async def accepted(_: Received) -> int:
    return 204


def always(status: int) -> Answering:
    async def answer(_: Received) -> int:
        return status

    return answer


class Receiver:
    """Receives on one port, through all its restarts. `answer` decides; None breaks off."""

    def __init__(self, answer: Answering = accepted, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.received: list[Received] = []
        self.succeeded: list[Received] = []
        self.changed = asyncio.Event()
        self.port = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._calls: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    @property
    def url(self) -> str:
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}/hook?a=1"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=self._tls
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def kill(self) -> None:
        """Stop listening, and reset all connections."""
        if self._server is not None:
            self._server.close()
            for call, writer in self._calls.items():
                writer.transport.abort()
                call.cancel()
            await asyncio.gather(*self._calls)
            await self._server.wait_closed()
            self._server = None

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds of what was received."""
        async with asyncio.timeout(60):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = asyncio.current_task()
        assert call is not None
        self._calls[call] = writer
        try:
            request = await _read(reader)
            self.received.append(request)
            self.changed.set()
            answer = await self.answer(request)
            status, headers = (answer, []) if isinstance(answer, int) else answer
            if 200 <= status < 300:
                self.succeeded.append(request)
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
            head = f"HTTP/1.1 {status} Any\r\ncontent-length: 0\r\n{lines}connection: close\r\n\r\n"
            writer.write(head.encode())
            await writer.drain()
            self.changed.set()
        except (OSError, EOFError, h11.ProtocolError, asyncio.CancelledError):
            pass  # asyncio logs a connection whose task was cancelled
        finally:
            del self._calls[call]
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Received:
    connection = h11.Connection(h11.SERVER)
    request: Any = None
    body = b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            data = await reader.read(65536)
            if not data and request is None:
                raise EOFError
            connection.receive_data(data)
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            assert request.method == b"POST"
            headers = {name.decode(): value.decode() for name, value in request.headers}
            return Received(request.target.decode(), headers, body)
