"""A client for HTTP and server-sent events, over plain sockets: it sends what a test says."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """An answer with its whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> dict[str, Any]:
        """The body of an error, which has to be a problem document of this status."""
        assert self.headers["content-type"] == "application/problem+json", self
        problem = self.json()
        assert (problem["status"], problem["type"]) == (self.status, "about:blank")
        assert problem.keys() >= {"title", "detail"}
        return problem


OUTPUT = "data"
"""The name of an event whose data is the output of a job, which may be of several lines."""


@dataclass(frozen=True)
class Event:
    """One server-sent event. A comment has the name `comment`."""

    name: str
    data: Any = None
    event_id: str | None = None


class Stream:
    """An open answer whose body is server-sent events."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._rest = b""

    async def event(self) -> Event | None:
        """Return the next event or comment, but not the time to reconnect; None at the end."""
        while True:
            while b"\n\n" not in self._rest:
                chunk = await self._chunk()
                if not chunk:
                    assert not self._rest, f"the stream ended within an event: {self._rest!r}"
                    return None
                self._rest += chunk
            text, _, self._rest = self._rest.partition(b"\n\n")
            event = _event(text.decode())
            if event is not None:
                return event

    async def news(self) -> Event | None:
        """Return the next event with data."""
        while (event := await self.event()) is not None:
            if event.data is not None:
                return event
        return None

    def pause(self) -> None:
        """Read nothing more of the connection than it has read."""
        self._writer.transport.pause_reading()

    def resume(self) -> None:
        self._writer.transport.resume_reading()

    def close(self) -> None:
        self._writer.close()

    async def _chunk(self) -> bytes:
        try:
            size = int(await self._reader.readline(), 16)
        except ValueError:
            raise ConnectionError("the connection ended within the body") from None
        chunk = await self._reader.readexactly(size)
        await self._reader.readexactly(2)
        return chunk


def _event(text: str) -> Event | None:
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data" and fields.get("event") == OUTPUT and name in fields:
            value = f"{fields[name]}\n{value}"
        else:
            assert name not in fields, f"a field occurs twice: {text!r}"
        fields[name] = value
    if "retry" in fields:
        return None
    if "" in fields:
        return Event("comment")
    data = fields.get("data")
    if data is not None and fields.get("event") != OUTPUT:
        data = json.loads(data)
    return Event(fields.get("event", "message"), data, fields.get("id"))


class Http:
    """Calls one server, each time over a connection of its own.

    Args:
        port: on 127.0.0.1.
        token: for the header Authorization of each request.
        address: the client's own.
    """

    def __init__(self, port: int, token: str | None = None, *, address: str = "127.0.0.1") -> None:
        self.port = port
        self._own = (address, 0)
        self._bearer = {} if token is None else {"Authorization": f"Bearer {token}"}

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.send("GET", path, headers)

    async def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        if body is None:
            return await self.send("POST", path, headers)
        given = {"Content-Type": "application/json", **headers}
        return await self.send("POST", path, given, json.dumps(body).encode())

    async def send(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Send a request and read its answer to the end."""
        reader, writer = await self.open(method, path, headers, body)
        try:
            status, answered = await _head(reader)
            if method == "HEAD" or status == 204:
                received = b""
            else:
                received = await reader.read()
            return Answer(status, answered, received)
        finally:
            writer.close()

    async def open(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a request; its answer is read by the caller."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, limit=2**24, local_addr=self._own
        )
        given = {
            "Host": f"127.0.0.1:{self.port}",
            "Connection": "close",
            **self._bearer,
            **{name.replace("_", "-"): value for name, value in (headers or {}).items()},
        }
        if body or method == "POST":
            given.setdefault("Content-Length", str(len(body)))
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {given[name]}" for name in given)]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        return reader, writer

    @asynccontextmanager
    async def events(self, path: str, **headers: str) -> AsyncIterator[Stream]:
        """Open an event stream."""
        reader, writer = await self.open("GET", path, headers)
        try:
            status, answered = await _head(reader)
            assert status == 200, (status, await reader.read())
            assert answered["content-type"].startswith("text/event-stream")
            yield Stream(reader, writer)
        finally:
            writer.close()


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers: dict[str, str] = {}
    for line in head[1:-2]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return int(head[0].split()[1]), headers
