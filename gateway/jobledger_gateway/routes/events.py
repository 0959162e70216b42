"""The routes that are event streams: one job, and many."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, Final, TypeAlias

from grpc import StatusCode
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from jobledger.core.options import WatchOptions
from jobledger.core.streams import AsyncWatch
from jobledger.core.webhook_events import TERMINAL
from jobledger.errors import JobledgerError
from jobledger.v1.job_pb2 import JobView
from jobledger.v1.job_service_pb2 import (
    WatchJobRequest,
    WatchJobResponse,
    WatchJobsRequest,
    WatchJobsResponse,
)
from jobledger_gateway.budget import Budget, address_of, slow_refusals
from jobledger_gateway.event_stream import EventStream, event
from jobledger_gateway.large_messages import LargeMessages
from jobledger_gateway.problems import invalid_field, problem_of
from jobledger_gateway.requests import credentials, from_query
from jobledger_gateway.settings import Settings
from jobledger_gateway.stream_limits import Place, StreamLimits
from jobledger_gateway.upstream import Sign, Upstream, counted_errors

LOST: Final = event(b'{"connected":false}', name="upstream")
REGAINED: Final = event(b'{"connected":true}', name="upstream")

Respond: TypeAlias = Callable[[Request, Place, EventStream, Receive, Send], Awaitable[None]]


def event_routes(
    settings: Settings,
    upstream: Upstream,
    limits: StreamLimits,
    messages: LargeMessages,
    answers: Budget,
) -> list[Route]:
    """Return the routes of event streams."""
    events = Events(settings, upstream, limits, messages, answers)
    return [
        Route("/v1/jobs/{job_id}/events", events.endpoint(events.job), methods=["GET"]),
        Route("/v1/events", events.endpoint(events.jobs), methods=["GET"]),
    ]


class Events:
    """Makes event streams of watches.

    Besides the events that tell of jobs there are: `end` after a job's terminal state;
    `reset` when the service refused the resume token, and a new listing follows; `upstream` with
    `{"connected": false}` when the gateway has lost the service, and with `true` when it has it
    back, and what was missed follows; `error`, with a problem, before a stream that ends early.
    """

    def __init__(
        self,
        settings: Settings,
        upstream: Upstream,
        limits: StreamLimits,
        messages: LargeMessages,
        answers: Budget,
    ) -> None:
        self._settings = settings
        self._upstream = upstream
        self._limits = limits
        self._messages = messages
        self._answers = answers

    def endpoint(self, respond: Respond) -> Any:
        """Return the ASGI application of one kind of stream, within the limits."""

        class Endpoint:
            async def __call__(_self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: N805
                request = Request(scope, receive)
                async with slow_refusals():
                    await _self.serve(request, receive, send)

            async def serve(_self, request: Request, receive: Receive, send: Send) -> None:  # noqa: N805
                scope = request.scope
                with (
                    self._limits.stream(request) as place,
                    self._answers.holding(address_of(scope)) as held,
                ):
                    stream = EventStream(place.stopped, held, heartbeat=self._settings.heartbeat)
                    try:
                        with counted_errors():
                            await respond(request, place, stream, receive, send)
                    except JobledgerError as error:
                        if not _comes_again(request, error):
                            raise
                        await stream.run(_service_away(), scope, receive, send)

        return Endpoint()

    async def job(
        self, request: Request, place: Place, stream: EventStream, receive: Receive, send: Send
    ) -> None:
        """Send one job's changes until its terminal state."""
        message = from_query(WatchJobRequest, request)
        if (last := last_event_id(request)) is not None:
            if not (last.isdecimal() and len(last) < 19):  # noqa: PLR2004
                raise invalid_field("last_event_id", "is not the id of an event of this stream")
            message.after_version = int(last)
        message.view = message.view or JobView.JOB_VIEW_BASIC
        read = partial(self._messages.read, request)
        async with self._upstream.watch_job(message, options(request, stream), read) as watch:
            async with place.opening(message.view):
                first = await anext(watch)
            if _is_over(first, message.after_version):
                # Stops an EventSource, which would reconnect for ever.
                await Response(status_code=204)(request.scope, receive, send)
                return
            async with aclosing(
                _with_error(self._job_events(request, message.view, first, watch))
            ) as chunks:
                await stream.run(chunks, request.scope, receive, send)

    async def jobs(
        self, request: Request, place: Place, stream: EventStream, receive: Receive, send: Send
    ) -> None:
        """Send the changes of many jobs, without an end."""
        message = from_query(WatchJobsRequest, request)
        message.resume_token = last_event_id(request) or message.resume_token
        read = partial(self._messages.read, request)
        async with self._upstream.watch_jobs(message, options(request, stream), read) as watch:
            async with place.opening(message.view):
                first = await anext(watch)
            async with aclosing(
                _with_error(self._feed_events(request, message.view, first, watch))
            ) as chunks:
                await stream.run(chunks, request.scope, receive, send)

    async def _job_events(
        self,
        request: Request,
        view: JobView.ValueType,
        first: WatchJobResponse | Sign,
        rest: AsyncWatch[WatchJobResponse | Sign],
    ) -> AsyncGenerator[bytes, None]:
        async for message in _chain(first, rest):
            if isinstance(message, WatchJobResponse):
                data = await self._messages.encoded(request, message, view)
                yield event(data, event_id=str(message.job.version))
        yield event(b"{}", name="end")

    async def _feed_events(
        self,
        request: Request,
        view: JobView.ValueType,
        first: WatchJobsResponse | Sign,
        rest: AsyncWatch[WatchJobsResponse | Sign],
    ) -> AsyncGenerator[bytes, None]:
        async for message in _chain(first, rest):
            if isinstance(message, Sign):
                if message is Sign.RESET:
                    yield event(b"{}", name="reset")
                continue
            has_news = message.WhichOneof("content") in ("changes", "synced")
            token = message.resume_token
            message.resume_token = ""
            data = await self._messages.encoded(request, message, view) if has_news else b""
            # A heartbeat is an id without data: the client resumes from there.
            yield event(data, event_id=token)


def last_event_id(request: Request) -> str | None:
    """Return the id of the last event that the client has; None if it has none."""
    return request.headers.get("last-event-id") or request.query_params.get("last_event_id") or None


def options(request: Request, stream: EventStream) -> WatchOptions:
    """Return the options of a watch, whose breaks are events of the stream."""
    return {
        "metadata": credentials(request),
        "on_disconnect": lambda _: stream.write(LOST),
        "on_reconnect": lambda: stream.write(REGAINED),
    }


def _comes_again(request: Request, error: JobledgerError) -> bool:
    """Whether an EventSource reconnects while the service is away.

    It gives up at any status but 200, and comes again after a stream that ends.
    """
    return error.code is StatusCode.UNAVAILABLE and "last-event-id" in request.headers


async def _service_away() -> AsyncGenerator[bytes, None]:
    yield LOST


def _is_over(first: WatchJobResponse | Sign, after_version: int) -> bool:
    return (
        isinstance(first, WatchJobResponse)
        and first.job.status in TERMINAL
        and 0 < first.job.version == after_version
    )


async def _chain(first: Any, rest: AsyncWatch[Any]) -> AsyncIterator[Any]:
    yield first
    async for message in rest:
        yield message


async def _with_error(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    try:
        with counted_errors():
            async for chunk in chunks:
                yield chunk
    except JobledgerError as error:
        yield event(json.dumps(problem_of(error)).encode(), name="error")
