"""The routes of output: its reading half of the Durable Streams protocol, and files.

The protocol: https://github.com/durable-streams/durable-streams/blob/main/PROTOCOL.md. Of it there
is what reads, without the mode for JSON: a stream of JSON is bytes as any other.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from jobledger.core.streams import AsyncWatch
from jobledger.errors import JobledgerError
from jobledger.v1.job_pb2 import JOB_VIEW_BASIC
from jobledger.v1.job_service_pb2 import (
    GetJobRequest,
    GetJobResponse,
    ReadOutputResponse,
    WatchOutputResponse,
)
from jobledger_gateway.answers import Answer
from jobledger_gateway.budget import Budget, address_of, delay_refusal
from jobledger_gateway.event_stream import EventStream, disconnected
from jobledger_gateway.limits import FILE_PART_BYTES, MIB
from jobledger_gateway.output.events import ENCODING_HEADER, OutputEvents
from jobledger_gateway.output.media_types import DEFAULT, SAFE, disposition, is_text, served_type
from jobledger_gateway.output.query import (
    EVENTS,
    LONG_POLL,
    OutputQuery,
    output_query,
    token_of,
)
from jobledger_gateway.output.ranges import asked_range, is_known
from jobledger_gateway.problems import HttpProblem
from jobledger_gateway.requests import credentials
from jobledger_gateway.routes.events import options
from jobledger_gateway.settings import Settings
from jobledger_gateway.stream_limits import Place, StreamLimits
from jobledger_gateway.upstream import Upstream, count_error

ATTEMPT: Final = "jobledger-attempt"
TRUNCATED: Final = "jobledger-truncated-before"

EXPOSED_HEADERS: Final = (
    "Accept-Ranges",
    "Content-Range",
    "ETag",
    "Jobledger-Attempt",
    "Jobledger-Truncated-Before",
    "Stream-Closed",
    "Stream-Cursor",
    "Stream-Next-Offset",
    "Stream-SSE-Data-Encoding",
    "Stream-Up-To-Date",
)

EVENT_HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would wait for more
)

Piece: TypeAlias = ReadOutputResponse | WatchOutputResponse


def output_routes(
    settings: Settings, upstream: Upstream, limits: StreamLimits, answers: Budget
) -> list[Route]:
    """Return the routes of output. The stream without a name has the shorter path."""
    endpoint = Output(settings, upstream, limits, answers).endpoint()
    return [
        Route("/v1/jobs/{job_id}/output", endpoint, methods=["GET"]),
        Route("/v1/jobs/{job_id}/output/{stream}", endpoint, methods=["GET"]),
    ]


class Output:
    """Answers requests for output."""

    def __init__(
        self, settings: Settings, upstream: Upstream, limits: StreamLimits, answers: Budget
    ) -> None:
        self._heartbeat = settings.heartbeat
        self._upstream = upstream
        self._limits = limits
        self._answers = answers

    def endpoint(self) -> Any:
        """Return the ASGI application."""

        class Endpoint:
            async def __call__(_self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: N805
                try:
                    await self._answer(Request(scope, receive), receive, send)
                except HttpProblem as problem:
                    await delay_refusal(problem)
                    raise

        return Endpoint()

    async def _answer(self, request: Request, receive: Receive, send: Send) -> None:
        query = output_query(request)
        if query.is_file or request.method == "HEAD":
            await self._file(request, query, receive, send)
        elif not query.live:
            await self._piece(request, query, receive, send)
        else:
            live = {EVENTS: self._events, LONG_POLL: self._long_poll}[query.live]
            with self._limits.stream(request) as place:
                try:
                    await live(request, query, place, receive, send)
                except JobledgerError as error:
                    count_error(error)
                    raise

    async def _piece(
        self, request: Request, query: OutputQuery, receive: Receive, send: Send
    ) -> None:
        """Send a piece of one attempt."""
        with self._answers.holding(address_of(request.scope), MIB) as held:
            piece = await self._read(request, query, MIB)
            _check_stored(query, piece)
            content_type = await self._content_type(request, query)
            headers = {**_headers(query, content_type), **_position(piece)}
            if query.last_bytes is not None:
                headers["cache-control"] = "no-store"
            else:
                etag = headers["etag"] = _etag(piece.offset, piece.next_offset, closed=piece.closed)
                if is_known(request, etag):
                    await Response(status_code=304, headers=headers)(request.scope, receive, send)
                    return
            await Answer(piece.data, 200, headers, held)(request.scope, receive, send)

    async def _long_poll(
        self, request: Request, query: OutputQuery, place: Place, receive: Receive, send: Send
    ) -> None:
        """Send the next piece, or that there was none for a while."""
        watched = self._upstream.watch_output(query.to_watch(), {"metadata": credentials(request)})
        async with watched as watch:
            async with place.opening(JOB_VIEW_BASIC):
                first = await anext(watch)
            message = await self._news(first, watch, place, receive)
            if message is None:
                return
            _check_stored(query, message)
            headers = {**_position(message), "cache-control": "no-store"}
            if not message.closed:
                headers["stream-cursor"] = query.next_cursor()
            if not message.data:
                headers["stream-up-to-date"] = "true"
                headers |= SAFE
                await Response(status_code=204, headers=headers)(request.scope, receive, send)
                return
            content_type = await self._content_type(request, query)
            headers = {**_headers(query, content_type), **headers}
            with self._answers.holding(place.address) as held:
                await Answer(message.data, 200, headers, held)(request.scope, receive, send)

    async def _news(
        self,
        first: WatchOutputResponse,
        watch: AsyncWatch[WatchOutputResponse],
        place: Place,
        receive: Receive,
    ) -> WatchOutputResponse | None:
        """Return the next message that is news, the first one if there is none; None: no client."""
        if first.data or first.closed:
            return first
        news = asyncio.create_task(_next_news(watch))
        gone = asyncio.create_task(disconnected(receive))
        tasks: set[asyncio.Future[Any]] = {news, gone}
        try:
            await asyncio.wait(
                {*tasks, place.stopped},
                timeout=self._heartbeat,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if news.done():
                return news.result()
            return None if gone.done() else first
        finally:
            news.cancel()
            gone.cancel()
            await asyncio.wait(tasks)

    async def _events(
        self, request: Request, query: OutputQuery, place: Place, receive: Receive, send: Send
    ) -> None:
        """Send all pieces, until nothing can follow."""
        stream = EventStream(place.stopped, self._answers, place.address, heartbeat=self._heartbeat)
        # What nobody has begun may become bytes.
        as_text = not query.as_base64 and is_text(await self._content_type(request, query, ""))
        watched = self._upstream.watch_output(query.to_watch(), options(request, stream))
        async with watched as watch:
            async with place.opening(JOB_VIEW_BASIC):
                first = await anext(watch)
            if first.closed and "last-event-id" in request.headers:
                # Stops an EventSource, which would reconnect for ever.
                await Response(status_code=204)(request.scope, receive, send)
                return
            _check_stored(query, first)
            headers = [*EVENT_HEADERS, *_raw(SAFE)]
            if not as_text:
                headers.append(ENCODING_HEADER)
            events = OutputEvents(query, as_text=as_text)
            async with aclosing(_made(events, first, watch)) as chunks:
                await stream.run(chunks, request.scope, receive, send, headers=headers)

    async def _file(
        self, request: Request, query: OutputQuery, receive: Receive, send: Send
    ) -> None:
        """Send all that is stored, of whatever attempts, or some of what nothing can follow."""
        is_head = request.method == "HEAD"
        with self._answers.holding(address_of(request.scope), 0 if is_head else FILE_PART_BYTES):
            last = await self._read(request, replace(query, offset=None, last_bytes=0), 1)
            first = await self._read(request, replace(query, offset=None, last_bytes=None), 1)
            start, end = min(first.offset, last.next_offset), last.next_offset
            content_type = await self._content_type(request, query)
            etag = _etag(start, end, closed=last.closed)
            headers = {
                **_headers(query, content_type),
                **_position(last),
                "etag": etag,
                **({TRUNCATED: token_of(start)} if start else {}),
            }
            part, status = range(start, end), 200
            if last.closed:
                headers["accept-ranges"] = "bytes"
                if not is_head and (asked := asked_range(request, end - start, etag)):
                    part, status = range(start + asked.start, start + asked.stop), 206
                    where = f"bytes {asked.start}-{asked.stop - 1}/{end - start}"
                    headers["content-range"] = where
            headers["content-length"] = str(len(part))
            if is_head:
                headers["cache-control"] = "no-store"
            elif is_known(request, etag):
                del headers["content-length"]
                await Response(status_code=304, headers=headers)(request.scope, receive, send)
                return
            async with aclosing(self._parts(request, query, part)) as parts:
                # What is refused now has its status. Later the answer can only break off.
                content = b"" if is_head else await anext(parts, b"")
                start_message = {"type": "http.response.start", "status": status}
                await send({**start_message, "headers": _raw(headers)})
                try:
                    while content and not await request.is_disconnected():
                        await send(
                            {"type": "http.response.body", "body": content, "more_body": True}
                        )
                        content = await anext(parts, b"")
                except (HttpProblem, JobledgerError):
                    return
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _parts(
        self, request: Request, query: OutputQuery, part: range
    ) -> AsyncGenerator[bytes, None]:
        at = part.start
        while at < part.stop:
            size = min(FILE_PART_BYTES, part.stop - at)
            piece = await self._read(request, replace(query, offset=at), size)
            if piece.offset != at or not piece.data:
                raise _not_stored(piece.offset)
            at = piece.next_offset
            yield piece.data

    async def _read(
        self, request: Request, query: OutputQuery, max_bytes: int
    ) -> ReadOutputResponse:
        asked = query.to_read(max_bytes)
        answer = await self._upstream.call("JobService.ReadOutput", asked, credentials(request))
        assert isinstance(answer, ReadOutputResponse)  # noqa: S101
        return answer

    async def _content_type(
        self, request: Request, query: OutputQuery, default: str = DEFAULT
    ) -> str:
        """Return the media type of a stream. That of one with data is known."""
        asked = GetJobRequest(job_id=query.job_id, user_id=query.user_id, view=JOB_VIEW_BASIC)
        answer = await self._upstream.call("JobService.GetJob", asked, credentials(request))
        assert isinstance(answer, GetJobResponse)  # noqa: S101
        streams = {each.name: each.content_type for each in answer.job.output_streams}
        return streams.get(query.stream, default)


async def _next_news(watch: AsyncWatch[WatchOutputResponse]) -> WatchOutputResponse:
    while not ((message := await anext(watch)).data or message.closed):
        pass
    return message


async def _made(
    events: OutputEvents,
    first: WatchOutputResponse,
    rest: AsyncWatch[WatchOutputResponse],
) -> AsyncGenerator[bytes, None]:
    yield events.made(first)
    async for message in rest:
        if message.truncated_before:
            raise _not_stored(message.truncated_before)
        yield events.made(message)


def _check_stored(query: OutputQuery, piece: Piece) -> None:
    """Raise HttpProblem if output that the client has asked for by its offset was dropped."""
    if query.offset is not None and piece.truncated_before:
        raise _not_stored(piece.truncated_before)


def _not_stored(truncated_before: int) -> HttpProblem:
    token = token_of(truncated_before)
    return HttpProblem(
        410,
        f"output before the offset {token} is not stored any more",
        {TRUNCATED: token},
        metadata={"truncated_before": token},
    )


def _headers(query: OutputQuery, content_type: str) -> dict[str, str]:
    served = served_type(content_type)
    return {
        **SAFE,
        "content-type": served,
        "cache-control": "private, no-cache",  # with the ETag, each time
        **disposition(served, query.job_id, query.stream),
    }


def _position(piece: Piece) -> dict[str, str]:
    """Return the headers that say where a piece is."""
    headers = {"stream-next-offset": token_of(piece.next_offset)}
    if piece.up_to_date:
        headers["stream-up-to-date"] = "true"
    if piece.closed:
        headers["stream-closed"] = "true"
    if piece.attempt:
        headers[ATTEMPT] = str(piece.attempt)
    if piece.truncated_before:
        headers[TRUNCATED] = token_of(piece.truncated_before)
    return headers


def _etag(start: int, end: int, *, closed: bool) -> str:
    """Return the tag of these bytes: what stands at an offset never changes."""
    return f'"{start}-{end}{"-closed" if closed else ""}"'


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]
