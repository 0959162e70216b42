"""Metrics and spans, as an OpenTelemetry collector receives them."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from jobledger.v1 import job_service_pb2 as pb
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_server.metrics import METRICS
from tests.support.collector import Collector, attributes
from tests.support.ports import free_port
from tests.support.rpc_caller import Caller, calling, watching
from tests.support.server_process import ServerProcess, run_server

Start = Callable[..., Any]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
JOBS, WORKERS = "jobledger.v1.JobService", "jobledger.v1.WorkerService"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with Collector() as collector:
        yield collector


async def traced_job(channel: grpc.aio.Channel) -> Any:
    request = pb.CreateJobRequest(user_id="ada", job_type="render")
    return (await JobServiceStub(channel).CreateJob(request, metadata=TRACED)).job


async def test_a_call_is_a_span_of_its_callers_trace(collector: Collector, start: Start) -> None:
    app = await start(otlp=collector.endpoint)
    async with grpc.aio.insecure_channel(app.address) as channel:
        await traced_job(channel)
        call = Caller(channel)
        await call.job()
        with pytest.raises(grpc.aio.AioRpcError):
            await call.GetJob(job_id="00000000-0000-7000-8000-000000000000", user_id="ada")
    await asyncio.to_thread(collector.wait_for, lambda: len(collector.spans) == 3)
    traced, untraced, refused = collector.spans
    assert traced.name == f"{JOBS}/CreateJob"
    assert (traced.trace_id.hex(), traced.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes(traced) == {
        "rpc.system.name": "grpc",
        "rpc.method": f"{JOBS}/CreateJob",
        "rpc.response.status_code": "OK",
    }
    assert traced.kind == traced.SPAN_KIND_SERVER
    assert untraced.parent_span_id == b""
    assert untraced.trace_id != traced.trace_id
    assert attributes(refused)["rpc.response.status_code"] == "NOT_FOUND"
    assert refused.status.code == refused.status.STATUS_CODE_UNSET  # no error of the server


async def test_the_span_of_a_stream_ends_with_its_first_message(
    collector: Collector, start: Start
) -> None:
    app = await start(otlp=collector.endpoint)
    async with calling(app.address) as call:
        job = await call.job()
        async with watching(call.WatchJob(job_id=job.id, user_id="ada")) as stream:
            await stream.read()
            await asyncio.to_thread(collector.wait_for, lambda: len(collector.spans) == 2)
            assert [span.name for span in collector.spans][1] == f"{JOBS}/WatchJob"
            await call.running()
    await asyncio.to_thread(collector.wait_for, lambda: len(collector.spans) == 4)
    names = [span.name for span in collector.spans]
    assert names.count(f"{JOBS}/WatchJob") == 1


async def test_a_jobs_wait_and_run_are_spans_of_its_creators_trace(
    collector: Collector, start: Start
) -> None:
    """They are created when they end, so that a job of hours has no open span."""
    app = await start(otlp=collector.endpoint)
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = Caller(channel)
        await call.ended()  # of no trace
        job = await traced_job(channel)
        claim = {"job_types": ["render"], "max_jobs": 1, "lease_duration": {"seconds": 30}}
        await call.ClaimJobs(worker_id="w", **claim)
        await call.ReleaseJob(job_id=job.id, attempt=1)
        await call.ClaimJobs(worker_id="w", **claim)
        error = {"reason": "NO_DISK", "message": "disk full"}
        job = (await call.MarkFailed(job_id=job.id, attempt=2, finish={"error": error})).job

    def of_the_job() -> list[Any]:
        return [span for span in collector.spans if "jobledger.job.id" in attributes(span)]

    await asyncio.to_thread(collector.wait_for, lambda: len(of_the_job()) == 2)
    wait, run = of_the_job()
    assert (wait.name, run.name) == ("wait render", "run render")
    assert {span.trace_id.hex() for span in (wait, run)} == {TRACE}
    assert {span.parent_span_id.hex() for span in (wait, run)} == {PARENT}
    assert wait.start_time_unix_nano == job.create_time.ToNanoseconds()
    assert wait.end_time_unix_nano == run.start_time_unix_nano == job.start_time.ToNanoseconds()
    assert run.end_time_unix_nano == job.complete_time.ToNanoseconds()
    assert attributes(run) == {
        "jobledger.job.id": job.id,
        "jobledger.job.type": "render",
        "jobledger.job.status": "FAILED",
        "jobledger.job.attempt": 2,
        "jobledger.job.reason": "NO_DISK",
    }
    assert run.status.code == run.status.STATUS_CODE_ERROR


async def test_the_wait_of_a_scheduled_job_begins_when_it_is_due(
    collector: Collector, start: Start
) -> None:
    app = await start(otlp=collector.endpoint)
    async with grpc.aio.insecure_channel(app.address) as channel:
        request = pb.CreateJobRequest(user_id="ada", job_type="render")
        request.schedule_time.FromNanoseconds(time.time_ns() + 2 * 10**8)
        await JobServiceStub(channel).CreateJob(request, metadata=TRACED)
        claim = {"job_types": ["render"], "max_jobs": 1, "lease_duration": {"seconds": 30}}
        claimed = await Caller(channel).ClaimJobs(worker_id="w", wait={"seconds": 20}, **claim)
        (job,) = claimed.jobs

    def waits() -> list[Any]:
        return [span for span in collector.spans if span.name == "wait render"]

    await asyncio.to_thread(collector.wait_for, lambda: bool(waits()))
    (wait,) = waits()
    assert wait.start_time_unix_nano == job.schedule_time.ToNanoseconds()
    assert wait.end_time_unix_nano == job.start_time.ToNanoseconds()


async def test_metrics_are_those_of_prometheus(collector: Collector, start: Start) -> None:
    app = await start(otlp=collector.endpoint)
    async with calling(app.address) as call:
        await call.ended()
        await call.job(job_type="print")

        def complete() -> bool:
            created = collector.metrics.get("jobledger.jobs.created")
            return created is not None and len(created.sum.data_points) == 2

        await asyncio.to_thread(collector.wait_for, complete)
    metrics = collector.metrics
    assert metrics.keys() <= {metric.name for metric in METRICS}
    created = metrics["jobledger.jobs.created"]
    assert created.sum.is_monotonic
    assert created.sum.aggregation_temporality == 2  # cumulative
    assert {attributes(p)["job_type"]: p.as_int for p in created.sum.data_points} == {
        "render": 1,
        "print": 1,
    }
    assert metrics["jobledger.feed.seq"].gauge.data_points[0].as_int == 4
    duration = metrics["grpc.server.call.duration"]
    assert duration.unit == "s"
    of_create = next(
        point
        for point in duration.histogram.data_points
        if attributes(point)["grpc.method"] == f"{JOBS}/CreateJob"
    )
    assert attributes(of_create)["grpc.status"] == "OK"
    assert of_create.count == sum(of_create.bucket_counts) == 2
    assert len(of_create.bucket_counts) == len(of_create.explicit_bounds) + 1


async def test_the_last_metrics_and_spans_are_exported_at_shutdown(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("OTEL_METRIC_EXPORT_INTERVAL", "OTEL_BSP_SCHEDULE_DELAY"):
        monkeypatch.setenv(variable, "600000")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "our-jobs")
    async with ServerProcess(tmp_path, arguments=("--otlp", collector.endpoint)) as server:
        async with calling(server.target) as call:
            await call.job()
        assert collector.metrics == {}
        assert await asyncio.to_thread(server.terminate) == 0
    assert [span.name for span in collector.spans] == [f"{JOBS}/CreateJob"]
    assert "jobledger.jobs.created" in collector.metrics
    assert {each["service.name"] for each in collector.resources} == {"our-jobs"}
    assert len({each["service.instance.id"] for each in collector.resources}) == 1


def test_an_invalid_export_interval_is_refused_with_an_explanation(tmp_path: Path) -> None:
    otlp = ("--otlp", "http://127.0.0.1:1")
    run = run_server(
        "serve", "--listen", "[::1]:0", *otlp, cwd=tmp_path, OTEL_METRIC_EXPORT_INTERVAL="-1"
    )
    assert run.returncode == 1
    error = "Error: OTEL_METRIC_EXPORT_INTERVAL=-1 is not a number of milliseconds"
    assert run.stderr.splitlines()[-1] == error


async def test_an_unavailable_collector_fails_no_call(tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    async with ServerProcess(tmp_path, arguments=("--otlp", nobody)) as server:
        async with calling(server.target) as call:
            await call.ended()
        assert await asyncio.to_thread(server.terminate) == 0


async def test_metrics_are_sent_again_after_an_answer_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    with Collector(odd=[("google.rpc.retryinfo-bin", b"\xff")]) as collector:
        await start(otlp=collector.endpoint)
        await asyncio.to_thread(collector.wait_for, lambda: bool(collector.metrics))
    assert [each.message for each in caplog.records if each.name == "jobledger.metrics"] == [
        "metrics_not_sent"
    ]
