"""Lets the conformance tests of Durable Streams fill what the gateway only reads.

They create streams and append to them by HTTP. Here that makes jobs with output, by gRPC. What
reads is passed to the gateway byte for byte, as is its answer.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from jobledger_gateway.output.query import token_of
from tests.support.rpc_caller import Caller, calling

APPENDED = 64 * 1024
"""Bytes that an append has at most."""

Headers = Mapping[str, str]


@dataclass
class Filled:
    """A stream: the output of a job."""

    job_id: str
    content_type: str
    end: int = 0
    is_closed: bool = False
    appending: asyncio.Lock = field(default_factory=asyncio.Lock)

    def headers(self) -> dict[str, str]:
        closed = {"Stream-Closed": "true"} if self.is_closed else {}
        return {
            "Content-Type": self.content_type,
            "Stream-Next-Offset": token_of(self.end),
            **closed,
        }


class FilledStreams:
    """A server that the tests take for one of Durable Streams."""

    def __init__(self, call: Caller, gateway: str) -> None:
        self._call = call
        self._gateway = gateway
        self._streams: dict[str, Filled] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
            method, target, _ = line.split(" ")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (each.partition(":") for each in lines)
            }
            if method in {"GET", "HEAD", "OPTIONS"}:
                await self._pass_on(method, target, headers, reader, writer)
            else:
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                status, answered = await self._fill(method, target, headers, body)
                answered = {**answered, "Content-Length": "0", "Connection": "close"}
                if status == 204:
                    del answered["Content-Length"]
                said = [f"HTTP/1.1 {status} -", *(f"{name}: {answered[name]}" for name in answered)]
                writer.write("\r\n".join([*said, "", ""]).encode())
                await writer.drain()
        writer.close()

    async def _fill(
        self, method: str, path: str, headers: Headers, body: bytes
    ) -> tuple[int, dict[str, str]]:
        stream = self._streams.get(path)
        content_type = headers.get("content-type", "application/octet-stream")
        if method == "PUT":
            if stream is not None:
                same = content_type.lower() == stream.content_type.lower()
                return (200, stream.headers()) if same else (409, {})
            job = await self._call.running()
            stream = self._streams[path] = Filled(job.id, content_type)
            await self._append(stream, headers, body)
            location = f"http://{headers['host']}{path}"
            return 201, {**stream.headers(), "Location": location}
        if stream is None:
            return 404, {}
        if method == "DELETE":
            del self._streams[path]
            if not stream.is_closed:
                await self._call.MarkCompleted(job_id=stream.job_id, attempt=1)
            await self._call.DeleteJob(job_id=stream.job_id, user_id="ada")
            return 204, {}
        if len(body) > 1024 * 1024:
            return 413, {}
        if stream.is_closed or (not body and "stream-closed" not in headers):
            return (409, stream.headers()) if stream.is_closed else (400, {})
        await self._append(stream, headers, body)
        return 204, stream.headers()

    async def _append(self, stream: Filled, headers: Headers, body: bytes) -> None:
        async with stream.appending:
            for at in range(0, len(body), APPENDED):
                answer: Any = await self._call.AppendOutput(
                    job_id=stream.job_id,
                    attempt=1,
                    data=body[at : at + APPENDED],
                    content_type=stream.content_type,
                )
                stream.end = answer.next_offset
            if headers.get("stream-closed") == "true":
                await self._call.MarkCompleted(job_id=stream.job_id, attempt=1)
                stream.is_closed = True

    async def _pass_on(
        self,
        method: str,
        target: str,
        headers: Headers,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        path, _, query = target.partition("?")
        job_id = self._streams[path].job_id if path in self._streams else "none"
        path = f"/v1/jobs/{job_id}/output?user_id=ada" + (f"&{query}" if query else "")
        host, _, port = self._gateway.rpartition(":")
        answer, asked = await asyncio.open_connection(host, int(port))
        try:
            sent = {**headers, "host": self._gateway, "connection": "close"}
            lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {sent[name]}" for name in sent)]
            asked.write("\r\n".join([*lines, "", ""]).encode())
            # The tests break off what is live: so does this.
            gone = asyncio.create_task(reader.read())
            while not gone.done():
                reading = asyncio.create_task(answer.read(64 * 1024))
                await asyncio.wait({gone, reading}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    reading.cancel()
                    break
                if not reading.result():
                    break
                writer.write(reading.result())
                await writer.drain()
            gone.cancel()
        finally:
            asked.close()


@asynccontextmanager
async def filled_streams(server: str, gateway: str) -> AsyncIterator[str]:
    """Serve until the block ends; yield the URL."""
    async with calling(server) as call:
        streams = FilledStreams(call, gateway)
        listening = await asyncio.start_server(streams.serve, "127.0.0.1", 0)
        async with listening:
            yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
