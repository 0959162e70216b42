"""The gateway as an application: its routes, and what it holds while it runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from jobledger.errors import JobledgerError
from jobledger_gateway.admission import Admission
from jobledger_gateway.budget import Budget
from jobledger_gateway.connections import Connections
from jobledger_gateway.guards import SECURITY_HEADERS, Guards
from jobledger_gateway.large_messages import LargeMessages
from jobledger_gateway.limits import ADDRESS_ANSWER_BYTES, ANSWER_BYTES
from jobledger_gateway.metrics import FIGURES
from jobledger_gateway.problems import HttpProblem, problem_response
from jobledger_gateway.readiness import Readiness
from jobledger_gateway.routes.calls import call_routes
from jobledger_gateway.routes.events import event_routes
from jobledger_gateway.routes.output import EXPOSED_HEADERS, output_routes
from jobledger_gateway.routes.page import page_routes
from jobledger_gateway.settings import Settings
from jobledger_gateway.stream_limits import StreamLimits
from jobledger_gateway.tracing import Spans, Tracing
from jobledger_gateway.upstream import Upstream

OPENAPI: Final = Path(__file__).with_name("openapi.json")
"""Made by `make generate`."""


def make_app(settings: Settings) -> Starlette:
    """Make the application. It connects to the service when it is first called.

    `app.state.limits.drain()` ends its event streams, which no server does by itself.
    """
    upstream = Upstream(
        settings.target,
        credentials=settings.credentials,
        tls_server_name=settings.tls_server_name,
        token=settings.token,
        timeout=settings.timeout,
        connect_timeout=settings.timeout,
    )
    FIGURES.max_streams = settings.max_streams
    spans = None if settings.otlp is None else Spans(settings.otlp)
    limits = StreamLimits(settings)
    connections = Connections(settings)
    messages = LargeMessages()
    readiness = Readiness(upstream, settings.target)

    async def readyz(_: Request) -> Response:
        await readiness.check()
        return JSONResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})

    answers = Budget("bytes in unread answers", ANSWER_BYTES, ADDRESS_ANSWER_BYTES)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Connections]]:
        reporting = asyncio.create_task(readiness.report())
        try:
            yield {"connections": connections}
        finally:
            reporting.cancel()
            limits.drain()
            await upstream.close()
            if spans is not None:
                await asyncio.to_thread(spans.close)

    routes: list[BaseRoute] = [
        Route("/healthz", _healthz, methods=["GET"]),
        Route("/readyz", readyz, methods=["GET"]),
    ]
    if not settings.webhooks_only:
        routes += [
            # Before the calls: `/v1/jobs/{job_id}` matches no slash, but its siblings are there.
            *event_routes(settings, upstream, limits, messages, answers),
            *output_routes(settings, upstream, limits, answers),
            *call_routes(settings, upstream, messages, answers),
            Route("/openapi.json", _openapi, methods=["GET"]),
            *page_routes(settings.page),
        ]
    app = Starlette(
        routes=routes,
        middleware=[
            *(() if spans is None else (Middleware(Tracing, spans=spans, routes=routes),)),
            Middleware(Admission),
            Middleware(Guards, origins=settings.origins, hosts=settings.hosts),
            Middleware(
                CORSMiddleware,
                allow_origins=settings.origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=[
                    "Authorization",
                    "Content-Type",
                    "If-None-Match",
                    "If-Range",
                    "Last-Event-ID",
                    "Range",
                ],
                expose_headers=["Location", "Retry-After", *EXPOSED_HEADERS],
            ),
        ],
        exception_handlers={
            HttpProblem: _refuse,
            JobledgerError: _refuse,
            HTTPException: _not_here,
            Exception: _failed,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.limits = limits
    return app


async def _healthz(_: Request) -> Response:
    return JSONResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})


async def _openapi(_: Request) -> Response:
    headers = {"Cache-Control": "no-cache"}
    return FileResponse(OPENAPI, headers=headers, media_type="application/json")


async def _failed(_: Request, __: Exception) -> Response:
    # It is logged by the server. Starlette answers outside of Guards here.
    response = problem_response(HttpProblem(500, "a bug of the gateway: see its log"))
    response.headers.update(SECURITY_HEADERS)
    return response


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, JobledgerError | HttpProblem)  # noqa: S101
    return problem_response(error)


async def _not_here(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    details = {404: "there is nothing at this path", 405: "this path has other methods"}
    detail = details.get(error.status_code, error.detail)
    return problem_response(HttpProblem(error.status_code, detail, error.headers))
