"""The routes that are one unary call each: a table, and what is done for each entry."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobledger_gateway.problems import HttpProblem
from jobledger_gateway.requests import credentials, from_body, from_query, read_body
from jobledger_gateway.settings import Settings
from jobledger_gateway.upstream import Upstream, request_class

INLINE_BYTES: Final = 4 * 1024
"""Bytes of a body that is parsed in the event loop at most. One of 1 MiB can take two seconds, and
would hold up all event streams: larger ones are parsed in a thread, one at a time."""


@dataclass(frozen=True, slots=True)
class Call:
    """A method and a path of HTTP, and the RPC that answers them.

    The names in braces are fields of the RPC's request. The others are in the URL's query for GET
    and DELETE, in a JSON body for POST.
    """

    verb: str
    path: str
    rpc: str
    status: int = 200


# Of several paths that match, the first one is taken.
CALLS: Final = (
    Call("GET", "/v1/jobs", "JobService.ListJobs"),
    Call("POST", "/v1/jobs", "JobService.CreateJob", 201),
    Call("POST", "/v1/jobs:retry", "JobService.RetryJobs"),
    Call("POST", "/v1/jobs:cancel", "JobService.CancelJobs"),
    Call("POST", "/v1/jobs:delete", "JobService.DeleteJobs"),
    Call("POST", "/v1/jobs/{job_id}:cancel", "JobService.CancelJob"),
    Call("POST", "/v1/jobs/{job_id}:retry", "JobService.RetryJob"),
    Call("GET", "/v1/jobs/{job_id}:explain", "QueueService.ExplainJob"),
    Call("GET", "/v1/jobs/{job_id}/transitions", "JobService.ListTransitions"),
    Call("GET", "/v1/jobs/{job_id}/attempts", "JobService.ListAttempts"),
    Call("GET", "/v1/jobs/{job_id}/assets", "JobService.ListAssets"),
    Call("GET", "/v1/jobs/{job_id}", "JobService.GetJob"),
    Call("DELETE", "/v1/jobs/{job_id}", "JobService.DeleteJob"),
    Call("POST", "/v1/watchTokens", "JobService.CreateWatchToken"),
    Call("GET", "/v1/stats", "QueueService.GetStats"),
    Call("POST", "/v1/jobTypes/{job_type}:pause", "QueueService.PauseJobType"),
    Call("POST", "/v1/jobTypes/{job_type}:resume", "QueueService.ResumeJobType"),
)


def call_routes(settings: Settings, upstream: Upstream) -> Iterator[Route]:
    """Yield a route for each path of CALLS."""
    paths: dict[str, dict[str, Call]] = defaultdict(dict)
    for call in CALLS:
        paths[call.path][call.verb] = call
    parsing = asyncio.Lock()
    for path, calls in paths.items():
        yield Route(path, _endpoint(calls, settings, upstream, parsing), methods=list(calls))


def _endpoint(
    calls: Mapping[str, Call], settings: Settings, upstream: Upstream, parsing: asyncio.Lock
) -> Any:
    async def endpoint(request: Request) -> Response:
        call = calls["GET" if request.method == "HEAD" else request.method]
        metadata = credentials(request)
        kind = request_class(call.rpc)
        body = await read_body(request, seconds=settings.read_timeout)
        if len(body) > INLINE_BYTES and call.verb == "POST":
            async with parsing:
                message = await asyncio.to_thread(from_body, kind, request, body)
        elif call.verb == "POST":
            message = from_body(kind, request, body)
        elif body:
            raise HttpProblem(400, f"{call.verb} has no body")
        else:
            message = from_query(kind, request)
        answer: Any = await upstream.call(call.rpc, message, metadata)
        headers = {"Cache-Control": "no-store"}
        if call.status == HTTPStatus.CREATED:
            headers["Location"] = f"/v1/jobs/{answer.job.id}"
        return Response(json_of(answer), call.status, headers, "application/json")

    return endpoint


def json_of(message: Message) -> str:
    """Return a message in protobuf's JSON mapping, in one line."""
    return json.dumps(MessageToDict(message), ensure_ascii=False, separators=(",", ":"))
