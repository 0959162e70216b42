"""The routes that are one unary call each: a table, and what is done for each entry."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from jobledger.v1.job_service_pb2 import CreateJobResponse
from jobledger_gateway.answers import Answer, expected_bytes
from jobledger_gateway.budget import Budget, Holding, address_of, delay_refusal
from jobledger_gateway.known_callers import KnownCallers
from jobledger_gateway.large_messages import LargeMessages
from jobledger_gateway.limits import ADDRESS_BODY_BYTES, BODY_BYTES
from jobledger_gateway.problems import HttpProblem
from jobledger_gateway.requests import credentials, from_query, read_body
from jobledger_gateway.settings import Settings
from jobledger_gateway.upstream import Upstream, request_class, response_class


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
    Call("POST", "/v1/jobs:rerun", "JobService.RerunJobs"),
    Call("POST", "/v1/jobs:cancel", "JobService.CancelJobs"),
    Call("POST", "/v1/jobs:delete", "JobService.DeleteJobs"),
    Call("POST", "/v1/jobs/{job_id}:cancel", "JobService.CancelJob"),
    Call("POST", "/v1/jobs/{job_id}:update", "JobService.UpdateJob"),
    Call("POST", "/v1/jobs/{job_id}:rerun", "JobService.RerunJob"),
    Call("GET", "/v1/jobs/{job_id}:explain", "QueueService.ExplainJob"),
    Call("GET", "/v1/jobs/{job_id}/transitions", "JobService.ListTransitions"),
    Call("GET", "/v1/jobs/{job_id}/attempts", "JobService.ListAttempts"),
    Call("GET", "/v1/jobs/{job_id}/assets", "JobService.ListAssets"),
    Call("GET", "/v1/jobs/{job_id}", "JobService.GetJob"),
    Call("DELETE", "/v1/jobs/{job_id}", "JobService.DeleteJob"),
    Call("POST", "/v1/watchTokens", "JobService.CreateWatchToken"),
    Call("GET", "/v1/stats", "QueueService.ListJobTypeStats"),
    Call("POST", "/v1/jobTypes/{job_type}:pause", "QueueService.PauseJobType"),
    Call("POST", "/v1/jobTypes/{job_type}:resume", "QueueService.ResumeJobType"),
    Call("POST", "/v1/jobTypes/{job_type}:setDefaults", "QueueService.SetJobTypeDefaults"),
    Call("GET", "/v1/jobTypes", "QueueService.ListJobTypes"),
)


def call_routes(
    settings: Settings, upstream: Upstream, messages: LargeMessages, answers: Budget
) -> Iterator[Route]:
    """Yield a route for each path of CALLS."""
    paths: dict[str, dict[str, Call]] = defaultdict(dict)
    for call in CALLS:
        paths[call.path][call.verb] = call
    known = KnownCallers(upstream)
    bodies = Budget("bytes in bodies of requests", BODY_BYTES, ADDRESS_BODY_BYTES)
    for path, calls in paths.items():
        answered = _answered(calls, settings, upstream, known, messages, bodies=bodies)
        yield Route(path, _endpoint(answered, answers), methods=list(calls))


def _endpoint(answered: Callable[[Request, Holding], Awaitable[ASGIApp]], answers: Budget) -> Any:
    class Endpoint:
        async def __call__(_self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: N805
            try:
                with answers.holding(address_of(scope)) as held:
                    answer = await answered(Request(scope, receive), held)
                    await answer(scope, receive, send)
            except HttpProblem as problem:
                await delay_refusal(problem)
                raise

    return Endpoint()


def _answered(
    calls: Mapping[str, Call],
    settings: Settings,
    upstream: Upstream,
    known: KnownCallers,
    messages: LargeMessages,
    *,
    bodies: Budget,
) -> Callable[[Request, Holding], Awaitable[ASGIApp]]:
    async def answered(request: Request, held: Holding) -> ASGIApp:
        with bodies.holding(address_of(request.scope)) as body:
            return await call_service(request, body, held)

    async def call_service(request: Request, body_held: Holding, held: Holding) -> ASGIApp:
        call = calls["GET" if request.method == "HEAD" else request.method]
        metadata = credentials(request)
        kind = request_class(call.rpc)
        body = await read_body(
            request,
            body_held,
            seconds=settings.read_timeout,
            before_large=partial(known.check, metadata),
        )
        if call.verb == "POST":
            message = await messages.parsed(kind, request, body)
        elif body:
            raise HttpProblem(400, f"{call.verb} has no body")
        else:
            message = from_query(kind, request)
        held.take(expected_bytes(message))
        answer = await upstream.call_unread(call.rpc, message, metadata)
        headers, status = {"Cache-Control": "no-store"}, call.status
        if status == HTTPStatus.CREATED:
            created = CreateJobResponse.FromString(answer)
            headers["Location"] = f"/v1/jobs/{created.job.id}"
            if created.existing:
                status = HTTPStatus.OK
        content = await messages.translated(request, response_class(call.rpc), answer)
        return Answer(content, status, headers, held)

    return answered
