"""The spans of the gateway, as an OpenTelemetry collector receives them."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.collector import Collector, attributes
from tests.support.http_client import Http
from tests.support.server_process import ServerProcess

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with Collector() as collector:
        yield collector


@pytest.fixture
async def http(
    server: ServerProcess, start_gateway: Callable[..., Any], collector: Collector
) -> Http:
    http: Http = await start_gateway(server.target, otlp=collector.endpoint)
    return http


async def spans(collector: Collector, count: int) -> list[Any]:
    await asyncio.to_thread(collector.wait_for, lambda: len(collector.spans) >= count)
    return list(collector.spans)


async def test_a_request_is_a_span_of_its_callers_trace_and_the_job_is_of_it(
    http: Http, collector: Collector
) -> None:
    created = await http.post("/v1/jobs", {"userId": "ada", "jobType": "t"}, **TRACED)
    job = created.json()["job"]
    (span,) = await spans(collector, 1)
    assert span.name == "POST /v1/jobs"
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.kind == span.SPAN_KIND_SERVER
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.route": "/v1/jobs",
        "http.response.status_code": 201,
    }
    # What the service does, and the job's own spans, are below the request's.
    assert job["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert collector.resources[-1]["service.name"] == "jobledger-gateway"


async def test_a_request_without_a_trace_begins_one_and_its_url_is_not_told(
    http: Http, collector: Collector
) -> None:
    job = (await http.post("/v1/jobs", {"userId": "ada", "jobType": "t"})).json()["job"]
    await http.get("/healthz")  # a probe has no span
    await http.get(f"/v1/jobs/{job['id']}?user_id=ada")
    await http.get("/nothing?token=secret")
    first, second, third = await spans(collector, 3)
    assert job["traceparent"].startswith(f"00-{first.trace_id.hex()}-{first.span_id.hex()}-0")
    assert first.parent_span_id == second.parent_span_id == b""
    assert second.name == "GET /v1/jobs/{job_id}"
    assert (third.name, attributes(third)["http.response.status_code"]) == ("GET", 404)


async def test_the_span_of_an_event_stream_ends_when_it_begins(
    http: Http, collector: Collector
) -> None:
    async with http.events("/v1/events?user_id=traces") as events:
        await events.news()
        (span,) = await spans(collector, 1)
    assert span.name == "GET /v1/events"
