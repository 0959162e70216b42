"""Spans of requests, sent to an OpenTelemetry collector over OTLP.

A span is in its caller's trace, and what the service does for the request is in the span.
OpenTelemetry's own variables (`OTEL_*`) set the rest. Its libraries are an extra and are imported
only here.
"""

import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from opentelemetry.trace import Span

CLOSE_SECONDS: Final = 2.0
"""How long the process waits at its end for the collector to take the last spans."""

SERVER_ERROR: Final = 500

UNTRACED: Final = frozenset({"/healthz", "/readyz"})
"""Paths that probes ask for all the time."""


class Spans:
    """Makes spans, and sends them.

    Args:
        endpoint: of the collector, as http://127.0.0.1:4317.

    Raises:
        ImportError: OpenTelemetry is not installed.
    """

    def __init__(self, endpoint: str) -> None:
        from opentelemetry.context import Context  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context  # noqa: PLC0415
        from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415

        named = os.environ.get("OTEL_SERVICE_NAME") or "jobledger-gateway"
        resource = Resource.create({SERVICE_NAME: named})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint)))
        self._tracer = self._provider.get_tracer("jobledger")
        self._propagator = tracecontext.TraceContextTextMapPropagator()
        self._none = Context()
        self._kind = SpanKind.SERVER
        self._error = StatusCode.ERROR
        self._in_context = set_span_in_context

    def begin(self, method: str, route: str, headers: MutableHeaders) -> "Span":
        """Begin the span of a request in its caller's trace; put the span in its place there."""
        carrier = {name: headers[name] for name in self._propagator.fields if name in headers}
        span = self._tracer.start_span(
            f"{method} {route}".rstrip(),
            context=self._propagator.extract(carrier, self._none),
            kind=self._kind,
            attributes={"http.request.method": method, "http.route": route},
        )
        for name in self._propagator.fields:
            del headers[name]
        handed_on: dict[str, str] = {}
        self._propagator.inject(handed_on, self._in_context(span, self._none))
        headers.update(handed_on)
        return span

    def answered(self, span: "Span", status: int) -> None:
        """Take note of the status of the answer."""
        span.set_attribute("http.response.status_code", status)
        if status >= SERVER_ERROR:
            span.set_status(self._error)

    def close(self) -> None:
        """Send the last spans, for at most CLOSE_SECONDS: a collector may not answer."""
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(CLOSE_SECONDS)


class Tracing:
    """Makes a span of each request. That of an event stream ends with the head of its answer.

    Args:
        app: what answers.
        spans: makes them.
        routes: the paths of the application, by which spans are named.
    """

    def __init__(self, app: ASGIApp, spans: Spans, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._spans = spans
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNTRACED:
            await self._app(scope, receive, send)
            return
        scope = {**scope, "headers": list(scope["headers"])}
        span = self._spans.begin(scope["method"], self._route(scope), MutableHeaders(scope=scope))

        async def send_observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._spans.answered(span, message["status"])
                kind = Headers(raw=message.get("headers", [])).get("content-type", "")
                if kind.startswith("text/event-stream"):
                    span.end()
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        except Exception:
            self._spans.answered(span, SERVER_ERROR)
            raise
        finally:
            if span.is_recording():
                span.end()

    def _route(self, scope: Scope) -> str:
        for route in self._routes:
            if route.matches(scope)[0] is Match.FULL:
                return str(getattr(route, "path", ""))
        return ""
