"""The routes that are event streams: one job, and many."""

from collections.abc import AsyncGenerator, Awaitable, Callable
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
from jobledger_gateway.budget import Budget, delay_refusal
from jobledger_gateway.event_stream import COMMENT, EventStream, event
from jobledger_gateway.large_messages import LargeMessages
from jobledger_gateway.problems import HttpProblem, invalid_field
from jobledger_gateway.requests import credentials, from_query
from jobledger_gateway.settings import Settings
from jobledger_gateway.stream_limits import Place, StreamLimits
from jobledger_gateway.upstream import Sign, Upstream, count_error

LOST: Final = event(b'{"connected":false}', name="upstream")
REGAINED: Final = event(b'{"connected":true}', name="upstream")
RESET: Final = event(b"{}", name="reset")
END: Final = event(b"{}", name="end")

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
                heartbeat = self._settings.heartbeat
                try:
                    with self._limits.stream(request) as place:
                        stream = EventStream(
                            place.stopped, self._answers, place.address, heartbeat=heartbeat
                        )
                        try:
                            await respond(request, place, stream, receive, send)
                        except JobledgerError as error:
                            count_error(error)
                            if not _comes_again(request, error):
                                raise
                            await stream.run(_service_away(), scope, receive, send)
                except HttpProblem as problem:
                    await delay_refusal(problem)
                    raise

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
            make = partial(self._job_event, request, message.view)
            async with aclosing(_events(make, first, watch, end=END)) as chunks:
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
            make = partial(self._feed_event, request, message.view)
            async with aclosing(_events(make, first, watch)) as chunks:
                await stream.run(chunks, request.scope, receive, send)

    async def _job_event(
        self, request: Request, view: JobView.ValueType, message: WatchJobResponse | Sign
    ) -> bytes:
        if isinstance(message, Sign):
            return COMMENT
        data = await self._messages.encoded(request, message, view)
        return event(data, event_id=str(message.job.version))

    async def _feed_event(
        self, request: Request, view: JobView.ValueType, message: WatchJobsResponse | Sign
    ) -> bytes:
        if isinstance(message, Sign):
            return RESET if message is Sign.RESET else COMMENT
        has_news = message.WhichOneof("content") in ("changes", "synced")
        token = message.resume_token
        message.resume_token = ""
        data = await self._messages.encoded(request, message, view) if has_news else b""
        # A heartbeat is an id without data: the client resumes from there.
        return event(data, event_id=token)


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


async def _events(
    make: Callable[[Any], Awaitable[bytes]], first: Any, rest: AsyncWatch[Any], *, end: bytes = b""
) -> AsyncGenerator[bytes, None]:
    yield await make(first)
    async for message in rest:
        yield await make(message)
    if end:
        yield end
