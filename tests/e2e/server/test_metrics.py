"""The metrics for Prometheus, scraped as Prometheus does."""

import asyncio
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc

from jobledger.v1 import job_service_pb2
from jobledger_server.app import App, open_app
from jobledger_server.held import Holdings
from jobledger_server.metrics import METRICS
from jobledger_server.rpc.serving.drain import Drain
from jobledger_server.settings import Settings
from jobledger_server.sql.sqlite import sqlite_driver
from jobledger_server.telemetry import prometheus
from jobledger_server.telemetry.job_metrics import MAX_JOB_TYPES, MAX_REASONS
from jobledger_server.telemetry.prometheus import MetricsUnavailable, serving_metrics
from jobledger_server.tuning import Tuning
from tests.support.access_file import rule
from tests.support.ports import free_port
from tests.support.rpc_caller import PROCESSING, Caller, calling, watching
from tests.support.scraping import read_page, scraped

Start = Callable[..., Any]


@pytest.fixture(autouse=True)
def _every_scrape_is_answered_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "CACHE_SECONDS", 0.0)


@pytest.fixture
def tuning() -> Tuning:
    return Tuning(counters_seconds=0.01)


@pytest.fixture
def address() -> str:
    """Where the server's metrics are."""
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
async def app(start: Start, address: str) -> App:
    return await start(metrics=address)


async def test_the_metrics_follow_the_service(address: str, call: Caller) -> None:
    before = await scraped(address)
    job = await call.running()
    async with watching(call.WatchJob(job_id=job.id, user_id="ada")) as stream:
        await stream.read()
        after = await scraped(address)
    assert after["jobledger_feed_seq"] == before["jobledger_feed_seq"] + 2
    delivered = "jobledger_feed_changes_total{source=%s}"
    assert (after[delivered % '"commit"'], after[delivered % '"table"']) == (2, 0)
    watches = 'jobledger_watches{of="job"}'
    assert (before[watches], after[watches]) == (0, 1)
    assert after["jobledger_feed_holes_total"] == 0
    assert after["process_resident_memory_bytes"] > 0


opened: list[str] = []
"""The files of /proc that this process opens or lists."""


def _keep(event: str, arguments: tuple[Any, ...]) -> None:
    if event in {"open", "os.listdir", "os.scandir"} and str(arguments[0]).startswith("/proc"):
        opened.append(str(arguments[0]))


async def test_the_metrics_of_the_process_read_nothing_that_systemd_hides(
    start: Start, address: str
) -> None:
    """`ProcSubset=pid` leaves only the processes of /proc."""
    sys.addaudithook(_keep)
    await start(metrics=address)
    page = await scraped(address)
    assert [file for file in opened if not file.startswith("/proc/self/")] == []
    assert "/proc/self/statm" in opened
    now = time.time()
    assert now - 3600 < page["process_start_time_seconds"] < now
    for name in ("cpu_seconds_total", "virtual_memory_bytes", "open_fds", "max_fds"):
        assert page[f"process_{name}"] > 0, name


async def test_a_server_has_the_metrics_that_are_declared_and_no_others(
    address: str, app: App
) -> None:
    """So the reference, whose table is made of the declarations, is true."""
    types = re.findall(r"^# TYPE (\S+) (\S+)$", await read_page(address), re.MULTILINE)
    assert {pair for pair in types if not pair[0].startswith("process_")} == {
        (metric.prometheus_name, metric.kind) for metric in METRICS
    }


async def test_the_jobs_of_the_database_are_counted_by_type_and_state(
    start: Start, address: str
) -> None:
    app = await start(metrics=address)
    async with calling(app.address) as call:
        due = Timestamp(seconds=int(time.time()) + 3600)
        await call.job(job_type="export", schedule_time=due)
        await call.running(job_type="import")
        await call.job(job_type="import")
        await call.job(job_type="import", group={})
    counted = 'jobledger_jobs{job_type="%s",state="%s"}'
    expected = {
        counted % (job_type, state): 0.0
        for job_type in ("export", "import")
        for state in ("ready", "blocked", "scheduled", "held", "waiting")
    }
    expected[counted % ("export", "scheduled")] = 1
    expected[counted % ("import", "waiting")] = 1
    expected[counted % ("import", "ready")] = expected[counted % ("import", "held")] = 1
    found: dict[str, float] = {}
    async with asyncio.timeout(10):
        while found != expected:
            figures = await scraped(address)
            found = {name: figures[name] for name in figures if name.startswith("jobledger_jobs{")}
    waits = [name for name in figures if name.startswith("jobledger_oldest_wait_seconds")]
    assert waits == ['jobledger_oldest_wait_seconds{job_type="import"}']
    assert figures[waits[0]] >= 0


async def test_the_jobs_of_the_first_types_are_counted_and_of_no_others(
    address: str, call: Caller
) -> None:
    names = [f"t{number:03}" for number in range(MAX_JOB_TYPES + 5)]
    await call.BatchCreateJobs(user_id="ada", requests=[{"job_type": name} for name in names])
    counted = 'jobledger_jobs{job_type="%s",state="ready"}'
    figures: dict[str, float] = {}
    async with asyncio.timeout(10):
        while counted % names[0] not in figures:
            figures = await scraped(address)
    found = {name for name in names if counted % name in figures}
    assert found == set(names[:MAX_JOB_TYPES])


async def test_a_paused_type_has_no_oldest_wait(start: Start, address: str) -> None:
    """No worker may claim its jobs, so they set off no alert on missing workers."""
    app = await start(metrics=address)
    async with calling(app.address) as call:
        await call.job(job_type="render")
        await call.PauseJobType(job_type="render", reason="maintenance")
        await call.job(job_type="zip")
    figures: dict[str, float] = {}
    async with asyncio.timeout(10):
        while 'jobledger_oldest_wait_seconds{job_type="zip"}' not in figures:
            figures = await scraped(address)
    assert figures['jobledger_jobs{job_type="render",state="ready"}'] == 1
    assert 'jobledger_oldest_wait_seconds{job_type="render"}' not in figures


async def test_the_jobs_of_the_database_are_counted_while_a_server_drains(
    address: str, tmp_path: Path, tuning: Tuning
) -> None:

    async def oldest_wait() -> float:
        figures = await scraped(address)
        return figures.get('jobledger_oldest_wait_seconds{job_type="render"}', 0.0)

    async def last_call(drain: Drain) -> None:
        with drain:
            await drain.begun.wait()
            before = await oldest_wait()
            async with asyncio.timeout(10):
                while await oldest_wait() <= before:
                    pass

    database = f"sqlite:///{tmp_path / 'jobledger.db'}"
    settings = Settings(listen="127.0.0.1:0", database=database, metrics=address)
    async with open_app(settings, tuning=tuning) as app:
        assert isinstance(app.held, Holdings)
        async with calling(app.address) as call:
            await call.job(job_type="render")
        ended = asyncio.create_task(last_call(app.held.drain))
        while not app.held.drain.running:
            await asyncio.sleep(0)
    await ended


HEALTH = "grpc.health.v1.Health"
JOBS, WORKERS = "jobledger.v1.JobService", "jobledger.v1.WorkerService"


async def test_calls_are_counted_as_grfc_a66_has_it(start: Start, address: str) -> None:
    app = await start(metrics=address, grace=0.5)
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = Caller(channel)
        job = await call.running()
        with pytest.raises(grpc.aio.AioRpcError):
            await call.GetJob(job_id=job.id, user_id="eve")
        async with watching(call.WatchJob(job_id=job.id, user_id="ada")) as stream:
            sent = (await stream.read()).ByteSize()
        health = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.aio.AioRpcError):
            await health.Check(health_pb2.HealthCheckRequest(service="none"))
        watch = call.WatchJob(job_id=job.id, user_id="ada")
        await watch.read()
        ended = {
            (f"{JOBS}/CreateJob", "OK"): 1,
            (f"{WORKERS}/TransitionJob", "OK"): 1,
            (f"{JOBS}/GetJob", "NOT_FOUND"): 1,
            (f"{JOBS}/WatchJob", "CANCELLED"): 1,
            (f"{HEALTH}/Check", "NOT_FOUND"): 1,
        }
        counted: dict[tuple[str, str], float] = {}
        async with asyncio.timeout(10):  # the server may learn later that a stream was cancelled
            while counted != ended:
                figures = await scraped(address)
                counted = {
                    (match[1], match[2]): value
                    for name, value in figures.items()
                    if (
                        match := re.fullmatch(
                            r'grpc_server_call_duration_seconds_count{grpc_method="(.*)",'
                            r'grpc_status="(.*)"}',
                            name,
                        )
                    )
                }
        watch.cancel()
    started = 'grpc_server_call_started_total{grpc_method="%s"}'
    assert figures[started % f"{JOBS}/WatchJob"] == 2
    of_create = f'{{grpc_method="{JOBS}/CreateJob",grpc_status="OK"}}'
    sizes = "grpc_server_call_%s_total_compressed_message_size_bytes_sum"
    request = job_service_pb2.CreateJobRequest(user_id="ada", job_type="render")
    assert figures[sizes % "rcvd" + of_create] == request.ByteSize()
    assert figures[sizes % "sent" + of_create] > request.ByteSize()
    of_watch = f'{{grpc_method="{JOBS}/WatchJob",grpc_status="CANCELLED"}}'
    assert figures[sizes % "sent" + of_watch] == sent
    assert figures[f'grpc_server_call_duration_seconds_bucket{of_create[:-1]},le="100.0"}}'] == 1


async def test_the_queue_and_run_times_of_jobs_are_measured(address: str, call: Caller) -> None:
    claim = {
        "worker_id": "w",
        "job_types": ["render"],
        "max_jobs": 1,
        "lease_duration": {"seconds": 30},
    }
    done = await call.job()
    await call.ClaimJobs(**claim)
    await call.ReleaseJob(job_id=done.id, attempt=1)
    # Its worker goes on, and names no attempt: none is lost by that.
    await call.UpdateProgress(job_id=done.id, any_attempt=True, progress={"progress": 50})
    asset = {"asset_type": "t", "storage_path": "p"}
    await call.CreateAsset(job_id=done.id, any_attempt=True, asset={"asset": asset})
    await call.ClaimJobs(**claim)
    done = (await call.MarkCompleted(job_id=done.id, attempt=2)).job
    cancelled = await call.job(job_type="print")
    await call.CancelJob(job_id=cancelled.id, user_id="ada")
    failed = await call.running(job_type="print")
    error = {"reason": "MY_OWN", "message": "no"}
    await call.MarkFailed(job_id=failed.id, attempt=1, finish={"error": error})
    await call.DeleteJob(job_id=failed.id, user_id="ada")
    figures = await scraped(address)
    assert figures['jobledger_jobs_created_total{job_type="render"}'] == 1
    assert figures['jobledger_jobs_created_total{job_type="print"}'] == 2
    finished = 'jobledger_jobs_finished_total{job_type="%s",reason="%s",status="%s"}'
    assert figures[finished % ("render", "", "COMPLETED")] == 1
    assert figures[finished % ("print", "CANCELLED", "FAILED")] == 1
    assert figures[finished % ("print", "MY_OWN", "FAILED")] == 1
    assert figures['jobledger_jobs_requeued_total{job_type="render"}'] == 1
    assert figures['jobledger_job_attempts_sum{job_type="render"}'] == 2
    of_render = '{job_type="render",status="COMPLETED"}'
    took = done.complete_time.ToMicroseconds() - done.start_time.ToMicroseconds()
    assert figures[f"jobledger_job_run_time_seconds_sum{of_render}"] == took / 1e6
    waited = done.start_time.ToMicroseconds() - done.create_time.ToMicroseconds()
    assert figures['jobledger_job_queue_wait_seconds_sum{job_type="render"}'] == waited / 1e6
    assert figures['jobledger_batch_size_count{batch="commands"}'] >= 6
    assert figures['jobledger_batch_duration_seconds_count{batch="claims"}'] == 2


async def test_a_scheduled_job_waits_for_a_worker_from_its_time_on(
    address: str, call: Caller
) -> None:
    """Not from its creation, else each scheduled job would set off the alert on jobs that wait."""
    due = Timestamp()
    due.FromMicroseconds(time.time_ns() // 1000 + 200_000)
    await call.job(schedule_time=due)
    claim = {"worker_id": "w", "job_types": ["render"], "max_jobs": 1, "wait": {"seconds": 20}}
    (job,) = (await call.ClaimJobs(**claim, lease_duration={"seconds": 30})).jobs
    waited = job.start_time.ToMicroseconds() - due.ToMicroseconds()
    figures = await scraped(address)
    assert figures['jobledger_job_queue_wait_seconds_sum{job_type="render"}'] == waited / 1e6


async def test_no_time_is_negative_if_the_clock_is_set_back(
    address: str, call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, hours = sqlite_driver.machine_clock, 0
    set_back = lambda: clock() - hours * 3_600_000_000  # noqa: E731
    monkeypatch.setattr(sqlite_driver, "machine_clock", set_back)
    job = await call.job()
    hours = 1
    await call.TransitionJob(job_id=job.id, target_status=PROCESSING)
    hours = 2
    job = (await call.MarkCompleted(job_id=job.id, attempt=1)).job
    assert job.create_time.seconds > job.start_time.seconds > job.complete_time.seconds
    figures = await scraped(address)
    assert figures['jobledger_job_queue_wait_seconds_sum{job_type="render"}'] == 0
    of_render = '{job_type="render",status="COMPLETED"}'
    assert figures[f"jobledger_job_run_time_seconds_sum{of_render}"] == 0
    assert figures[f"jobledger_job_run_time_seconds_count{of_render}"] == 1


async def test_job_types_beyond_a_limit_share_one_label(address: str, call: Caller) -> None:
    """A caller may choose any name, and each would be a time series."""
    requests = [{"job_type": f"t{number}"} for number in range(MAX_JOB_TYPES + 5)]
    await call.BatchCreateJobs(user_id="ada", requests=requests)
    figures = await scraped(address)
    created = {name: n for name, n in figures.items() if "jobs_created_total" in name}
    assert len(created) == MAX_JOB_TYPES + 1
    assert created['jobledger_jobs_created_total{job_type="other"}'] == 5


async def test_reasons_of_workers_beyond_a_limit_share_one_label(
    address: str, call: Caller
) -> None:
    """For each type: a worker may give any reason, and each would be a time series."""
    reasons = [f"REASON_{number}" for number in range(MAX_REASONS + 3)]
    for job_type in ("render", "print"):
        for reason in ("REASON_0", *reasons):
            job = await call.running(job_type=job_type)
            error = {"reason": reason, "message": "no"}
            await call.MarkFailed(job_id=job.id, attempt=1, finish={"error": error})
    figures = await scraped(address)
    counted = 'jobledger_jobs_finished_total{job_type="%s",reason="%s",status="FAILED"}'
    assert {name: n for name, n in figures.items() if "jobs_finished_total" in name} == {
        counted % (job_type, reason): count
        for job_type in ("render", "print")
        for reason, count in {
            **dict.fromkeys(reasons[:MAX_REASONS], 1),
            "REASON_0": 2,
            "other": 3,
        }.items()
    }


async def test_limits_and_waiting_claims_are_measured(start: Start, address: str) -> None:
    app = await start(metrics=address, max_watches=4)
    async with calling(app.address) as call:
        job = await call.job()
        claim = call.ClaimJobs(
            worker_id="w",
            job_types=["other"],
            max_jobs=1,
            lease_duration={"seconds": 30},
            wait={"seconds": 20},
        )
        async with watching(call.WatchJob(job_id=job.id, user_id="ada")) as stream:
            await stream.read()
            async with watching(call.WatchJob(job_id=job.id, user_id="ada")) as refused:
                with pytest.raises(grpc.aio.AioRpcError):
                    await refused.read()
            async with asyncio.timeout(10):
                while app.claim_waiters.count("other") == 0:
                    await asyncio.sleep(0.01)
            figures = await scraped(address)
        claim.cancel()
    assert figures['jobledger_limit_used{limit="watches"}'] == 1
    assert figures['jobledger_limit_max{limit="watches"}'] == 4
    assert figures['jobledger_limit_refused_total{limit="watches",scope="caller"}'] == 1
    assert figures["jobledger_claims_waiting"] == 1
    assert figures['jobledger_store_connections_max{pool="writers"}'] >= 1
    assert figures["jobledger_feed_lag_seconds"] >= 0


async def test_quotas_of_an_identity_are_measured(start_with: Start, address: str) -> None:
    rules = "".join(
        rule(name, f'roles = ["owner"]\nusers = ["{name}"]\nquotas = {{ {quota} = 1 }}')
        for name, quota in (("ada", "jobs_per_second"), ("bob", "unfinished_jobs"))
    )
    app = await start_with(rules, metrics=address)
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = Caller(channel, token="ada")
        requests = [{"job_type": "t"}] * 100
        await call.BatchCreateJobs(user_id="ada", requests=requests)
        with pytest.raises(grpc.aio.AioRpcError):
            await call.job()
        other = Caller(channel, token="bob")
        await other.job(user_id="bob")
        with pytest.raises(grpc.aio.AioRpcError):
            await other.job(user_id="bob")
        figures = await scraped(address)
    refused = [
        (name, count)
        for name, count in figures.items()
        if name.startswith("jobledger_limit_refused_total") and count
    ]
    assert sorted(refused) == [
        ('jobledger_limit_refused_total{limit="jobs_per_second",scope="caller"}', 1),
        ('jobledger_limit_refused_total{limit="unfinished_jobs",scope="caller"}', 1),
    ]


@pytest.mark.parametrize("sent", [b"", b"GET /metrics HTTP/1.1\r\n"])
async def test_a_request_has_a_time_limit_in_all(
    start: Start, address: str, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """However often the client sends a further byte."""
    monkeypatch.setattr(prometheus, "REQUEST_SECONDS", 0.3)
    await start(metrics=address)
    reader, writer = await asyncio.open_connection(*address.split(":"))
    writer.write(sent)
    ended = asyncio.create_task(reader.read())
    async with asyncio.timeout(30):
        while not ended.done():
            if sent:
                writer.write(b"a")
            await asyncio.wait([ended], timeout=0.05)
    with suppress(ConnectionResetError):
        assert await ended == b""
    writer.close()


async def test_scrapes_within_a_second_share_an_answer(
    start: Start, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a few clients that scrape all the time would take a core."""
    monkeypatch.setattr(prometheus, "CACHE_SECONDS", 3600.0)
    app = await start(metrics=address)
    pages = {await read_page(address)}
    async with calling(app.address) as call:
        await call.job()
    pages |= set(await asyncio.gather(*(read_page(address) for _ in range(10))))
    pages.add(await read_page(address, {"Accept-Encoding": "gzip"}))
    pages.add(await read_page(address, {"Accept": "application/openmetrics-text"}))
    assert len(pages) == 1


async def test_connections_that_send_nothing_take_no_thread_and_no_scrape(
    address: str, app: App
) -> None:
    threads = threading.active_count()
    async with AsyncExitStack() as stack:
        for _ in range(10 * prometheus.MAX_CONNECTIONS):
            _, writer = await asyncio.open_connection(*address.split(":"))
            stack.callback(writer.close)
        assert (await scraped(address))["jobledger_feed_seq"] == 0
        assert threading.active_count() - threads < 3 * prometheus.MAX_CONNECTIONS


async def test_a_port_in_use_is_reported_with_an_explanation() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(MetricsUnavailable, match=address):
            async with serving_metrics(address, lambda: iter(())):
                pass
