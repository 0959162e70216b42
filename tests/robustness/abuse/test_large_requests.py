"""The largest request of each method, permitted or not: none of them holds the event loop.

What else is served waits for as long as the loop is held, so the measure is the most that
the loop's thread computes between two of its turns; that does not depend on how busy the
machine is.
"""

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from types import TracebackType
from typing import Any, Self

import grpc
import pytest
from google.longrunning import operations_pb2 as operations
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from jobledger.internal.v1alpha1 import webhook_delivery_service_pb2 as webhook_deliveries
from jobledger.v1 import asset_pb2, job_pb2
from jobledger.v1 import job_service_pb2 as jobs
from jobledger.v1 import queue_service_pb2 as queues
from jobledger.v1 import webhook_service_pb2 as webhooks
from jobledger.v1 import worker_service_pb2 as workers
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub
from jobledger_server.app import App
from jobledger_server.domain.limits import (
    MAX_OUTPUT_DATA_BYTES,
    MAX_OUTPUT_PIECE_BYTES,
    MAX_UPDATES,
)
from jobledger_server.rpc.incoming import parsed
from jobledger_server.rpc.serving import calls
from jobledger_server.rpc.workers import work_requests
from jobledger_server.runtime.garbage import keep_collections_short
from tests.robustness.abuse.work_attacks import HELLO, MESSAGES
from tests.support.databases import sqlite_only
from tests.support.rpc_caller import COMPLETED, FAILED, PARTIAL, PROCESSING, QUEUED, Caller

LONGEST_HOLD = 0.05
"""Seconds of CPU, as the contract has it."""

LONGEST_PAUSE = 5.0
"""Seconds of real time; a thread that keeps the interpreter would show here."""

ID = "00000000-0000-7000-8000-000000000000"

EMPTY_LISTS = Struct(
    fields={"a": Value(list_value=ListValue(values=[Value(list_value=ListValue())] * 65_000))}
)
"""The most that 256 KiB can hold."""

CHECKPOINT = Struct(
    fields={"a": Value(list_value=ListValue(values=[Value(list_value=ListValue())] * 16_000))}
)
"""The most values that a checkpoint may have."""

JOB_IDS = [f"00000000-0000-7000-8000-{number:012}" for number in range(1, 1001)]
"""Stand for the ids of jobs, the largest first."""

JOB_ID = JOB_IDS[0]

LABELS = {f"{n:02}{'k' * 61}": "v" * 255 for n in range(32)}
SMALL_LABELS = {f"k{n}": "v" * 10 for n in range(32)}
STATUSES = [QUEUED, PROCESSING, COMPLETED, PARTIAL, FAILED]
TYPES = [f"{n:03}{'t' * 47}" for n in range(100)]
ASSETS = [
    asset_pb2.NewAsset(asset_type="t", url=f"https://e.example/{'x' * 990}", name=f"{number}")
    for number in range(1000)
]


def empty_entries(message: bytes, field: int, entries: int) -> bytes:
    """Return a message with `entries` empty entries of a repeated field."""
    return message + bytes([field << 3 | 2, 0]) * entries


@cache
def requests() -> Mapping[str, list[bytes]]:
    """Return the largest requests of each method, of about a mebibyte where it may be large."""
    error = job_pb2.JobError(reason="R" * 63, message="ü" * 4096, details=EMPTY_LISTS)
    end = {"result": EMPTY_LISTS, "assets": ASSETS[:700]}
    create = jobs.CreateJobRequest(
        user_id="ü" * 128, job_type="t" * 50, parameters=EMPTY_LISTS, labels=LABELS
    )
    many = jobs.BatchCreateJobsRequest(
        user_id="ada",
        requests=[jobs.CreateJobRequest(job_type="t", labels=SMALL_LABELS)] * 1000,
    )
    deep = jobs.BatchCreateJobsRequest(
        user_id="ada",
        requests=[jobs.CreateJobRequest(job_type="t", parameters=EMPTY_LISTS)] * 4,
    )
    made: dict[str, list[Any]] = {
        "JobService/CreateJob": [create],
        "JobService/BatchCreateJobs": [
            many,
            deep,
            empty_entries(b"\x0a\x03ada", 2, 500_000),
            jobs.BatchCreateJobsRequest(user_id="ada", requests=[jobs.CreateJobRequest()] * 1000),
            jobs.BatchCreateJobsRequest(
                user_id="ada",
                requests=[jobs.CreateJobRequest.FromString(empty_entries(b"", 4, 400))] * 1000,
            ),
        ],
        "JobService/GetJob": [jobs.GetJobRequest(job_id=JOB_ID, user_id="ada")],
        "JobService/BatchGetJobs": [
            jobs.BatchGetJobsRequest(user_id="ada", job_ids=JOB_IDS),
            jobs.BatchGetJobsRequest(user_id="ada", job_ids=JOB_IDS, view="JOB_VIEW_FULL"),
            jobs.BatchGetJobsRequest(user_id="ada", job_ids=JOB_IDS[:12], view="JOB_VIEW_FULL"),
            jobs.BatchGetJobsRequest(user_id="ada", job_ids=[""] * 500_000),
        ],
        "JobService/ListJobs": [
            jobs.ListJobsRequest(
                user_id="ada",
                page_size=1000,
                filter={"job_types": TYPES, "statuses": STATUSES * 20},
            ),
            jobs.ListJobsRequest(user_id="ada", page_size=1000, filter={"labels": LABELS}),
            jobs.ListJobsRequest(user_id="ada", page_size=1000),
            jobs.ListJobsRequest(user_id="ada", page_size=1000, view="JOB_VIEW_FULL"),
            jobs.ListJobsRequest(user_id="ada", filter={"statuses": STATUSES[:1] * 1_000_000}),
        ],
        "JobService/CancelJob": [jobs.CancelJobRequest(job_id=ID, user_id="ada", reason="ü" * 512)],
        "JobService/UpdateJob": [jobs.UpdateJobRequest(job_id=JOB_ID, user_id="ada", priority=9)],
        "JobService/SealGroup": [jobs.SealGroupRequest(job_id=ID, user_id="ada")],
        "JobService/DeleteJob": [jobs.DeleteJobRequest(job_id=ID, user_id="ada")],
        "JobService/CreateWatchToken": [
            jobs.CreateWatchTokenRequest(user_id="ada", labels=labels)
            for labels in (LABELS, SMALL_LABELS)
        ],
        "JobService/RevokeWatchTokens": [jobs.RevokeWatchTokensRequest()],
        "JobService/RerunJob": [jobs.RerunJobRequest(job_id=JOB_ID, user_id="ada")],
        "JobService/CancelJobs": [
            jobs.CancelJobsRequest(user_id="ada", all=True, max_jobs=1000, reason="ü" * 512),
            jobs.CancelJobsRequest(
                user_id="ada", filter=jobs.JobFilter(statuses=STATUSES[:1] * 1_000_000)
            ),
        ],
        "JobService/RerunJobs": [
            jobs.RerunJobsRequest(user_id="ada", all=True, max_jobs=1000, jobs_per_second=1000),
            jobs.RerunJobsRequest(user_id="ada", all=True, max_jobs=1000),
            jobs.RerunJobsRequest(
                user_id="ada", filter=jobs.JobFilter(job_types=TYPES, labels=LABELS)
            ),
        ],
        "JobService/DeleteJobs": [jobs.DeleteJobsRequest(user_id="ada", all=True, max_jobs=1000)],
        "JobService/ListAssets": [
            jobs.ListAssetsRequest(job_id=JOB_ID, user_id="ada", page_size=1000)
        ],
        "JobService/ListTransitions": [
            jobs.ListTransitionsRequest(job_id=JOB_ID, user_id="ada", page_size=1000)
        ],
        "JobService/ListAttempts": [
            jobs.ListAttemptsRequest(job_id=JOB_ID, user_id="ada", page_size=1000)
        ],
        "JobService/ReadOutput": [
            jobs.ReadOutputRequest(job_id=JOB_ID, user_id="ada", max_bytes=MAX_OUTPUT_PIECE_BYTES)
        ],
        "WorkerService/AppendOutput": [
            workers.AppendOutputRequest(job_id=JOB_ID, attempt=1, data=bytes(MAX_OUTPUT_DATA_BYTES))
        ],
        "WorkerService/ClaimJobs": [
            workers.ClaimJobsRequest(worker_id="w", job_types=TYPES, max_jobs=100),
            workers.ClaimJobsRequest(worker_id="w", job_types=["small"], max_jobs=100),
            workers.ClaimJobsRequest(worker_id="w", job_types=["large"], max_jobs=100),
        ],
        "WorkerService/TransitionJob": [
            workers.TransitionJobRequest(job_id=JOB_ID, attempt=1, target_status=3, finish=end),
            workers.TransitionJobRequest(
                job_id=JOB_ID, attempt=1, target_status=5, finish={"error": error}
            ),
        ],
        "WorkerService/UpdateProgress": [
            workers.UpdateProgressRequest(
                job_id=JOB_ID,
                attempt=1,
                progress={"progress_message": "ü" * 512, "checkpoint": CHECKPOINT},
            ),
            workers.UpdateProgressRequest(
                job_id=JOB_ID, attempt=1, progress={"checkpoint": EMPTY_LISTS}
            ),
        ],
        "WorkerService/MarkCompleted": [
            workers.MarkCompletedRequest(job_id=JOB_ID, attempt=1, finish={"assets": ASSETS}),
            workers.MarkCompletedRequest(job_id=JOB_ID, attempt=1, finish=end),
            # In `finish`, of a million bytes.
            empty_entries(b"\x0a\x01a\x22\xc0\x84\x3d", 4, 500_000),
            workers.MarkCompletedRequest(
                job_id=JOB_ID, attempt=1, finish={"assets": [asset_pb2.NewAsset()] * 1000}
            ),
        ],
        "WorkerService/MarkPartial": [
            workers.MarkPartialRequest(job_id=JOB_ID, attempt=1, finish={**end, "error": error})
        ],
        "WorkerService/MarkFailed": [
            workers.MarkFailedRequest(
                job_id=JOB_ID, attempt=1, finish={**end, "assets": ASSETS[:500], "error": error}
            )
        ],
        "WorkerService/ReleaseJob": [workers.ReleaseJobRequest(job_id=ID, attempt=1)],
        "WorkerService/CreateAsset": [
            workers.CreateAssetRequest(
                job_id=ID,
                attempt=1,
                asset={
                    "asset": {"asset_type": "t", "url": ASSETS[0].url, "storage_path": "ü" * 1024}
                },
            )
        ],
    }
    made |= {
        "QueueService/ListJobTypeStats": [
            queues.ListJobTypeStatsRequest(page_size=1000),
            queues.ListJobTypeStatsRequest(job_types=TYPES, page_size=1000),
        ],
        "QueueService/ExplainJob": [queues.ExplainJobRequest(job_id=JOB_ID)],
        "QueueService/PauseJobType": [
            queues.PauseJobTypeRequest(job_type="none", reason="ü" * 512)
        ],
        "QueueService/ResumeJobType": [queues.ResumeJobTypeRequest(job_type="none")],
        "QueueService/SetConcurrencyLimit": [
            queues.SetConcurrencyLimitRequest(name="ü" * 128, max_running=1)
        ],
        "QueueService/PauseConcurrencyKey": [
            queues.PauseConcurrencyKeyRequest(name="ü" * 128, reason="ü" * 512)
        ],
        "QueueService/ResumeConcurrencyKey": [queues.ResumeConcurrencyKeyRequest(name="ü" * 128)],
        "WebhookService/CreateWebhook": [
            webhooks.CreateWebhookRequest(
                url=f"https://example.com/{'a' * 2000}", job_types=TYPES, labels={"a": "ü" * 255}
            )
        ],
        "WebhookService/GetWebhook": [webhooks.GetWebhookRequest(webhook_id=JOB_ID)],
        "WebhookService/UpdateWebhook": [
            webhooks.UpdateWebhookRequest(
                webhook_id=JOB_ID, update_mask=FieldMask(paths=["job_types"]), job_types=TYPES
            )
        ],
        "WebhookService/RotateSecret": [
            webhooks.RotateSecretRequest(webhook_id=JOB_ID, request_id="ü" * 128)
        ],
        "WebhookService/ListWebhooks": [webhooks.ListWebhooksRequest(page_size=1000)],
        "WebhookService/DeleteWebhook": [webhooks.DeleteWebhookRequest(webhook_id=JOB_ID)],
        "WebhookService/EnableWebhook": [webhooks.EnableWebhookRequest(webhook_id=JOB_ID)],
        "WebhookDeliveryService/ClaimWebhooks": [
            webhook_deliveries.ClaimWebhooksRequest(deliverer_id="ü" * 128)
        ],
        "WebhookDeliveryService/SaveWebhook": [
            webhook_deliveries.SaveWebhookRequest(webhook_id=JOB_ID, last_failure="ü" * 512)
        ],
        "QueueService/ListConcurrencyLimits": [queues.ListConcurrencyLimitsRequest(page_size=1000)],
        "QueueService/SetJobTypeDefaults": [queues.SetJobTypeDefaultsRequest(job_type="t" * 50)],
        "QueueService/ListJobTypes": [queues.ListJobTypesRequest(page_size=1000)],
    }
    name = f"jobs/{JOB_ID}"
    made |= {
        "Operations/GetOperation": [operations.GetOperationRequest(name=name)],
        "Operations/ListOperations": [
            operations.ListOperationsRequest(name="jobs", page_size=1000),
            operations.ListOperationsRequest(name="jobs", filter=f"done={' ' * 60_000}true"),
        ],
        "Operations/CancelOperation": [operations.CancelOperationRequest(name=f"jobs/{ID}")],
        "Operations/DeleteOperation": [operations.DeleteOperationRequest(name=f"jobs/{ID}")],
        "Operations/WaitOperation": [
            operations.WaitOperationRequest(name=name, timeout=Duration(nanos=1))
        ],
    }
    return {
        method: [one if isinstance(one, bytes) else one.SerializeToString() for one in each]
        for method, each in made.items()
    }


def send(target: str, method: str, made: Iterable[bytes]) -> list[str]:
    """Send each request of a method, and return what came of each."""
    service = method.partition("/")[0]
    package = "google.longrunning" if service == "Operations" else "jobledger.v1"
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_metadata_size", 2**20)]
    codes = []
    with grpc.insecure_channel(target, options) as channel:
        call = channel.unary_unary(f"/{package}.{method}")
        for request in made:
            try:
                call(request, timeout=20, metadata=[("x-jobledger-user", "ada")])
                codes.append("OK")
            except grpc.RpcError as error:
                codes.append(error.code().name)
    return codes


class Holds:
    """Measures, in its block, for how long the running event loop is held at the longest.

    A turn of the loop ends where it asks its selector what has happened, and the next one begins
    with the answer.
    """

    def __init__(self) -> None:
        self.cpu = self.pause = 0.0
        self._loop: Any = asyncio.get_running_loop()
        self._select = self._loop._selector.select  # noqa: SLF001
        self._begun = (0.0, 0.0)

    def __enter__(self) -> Self:
        self._begin()
        self._loop._selector.select = self._measured  # noqa: SLF001
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop._selector.select = self._select  # noqa: SLF001

    def _begin(self) -> None:
        self._begun = time.thread_time(), time.monotonic()

    def _measured(self, timeout: float | None) -> Any:
        cpu, now = self._begun
        self.cpu = max(self.cpu, time.thread_time() - cpu)
        self.pause = max(self.pause, time.monotonic() - now)
        happened = self._select(timeout)
        self._begin()
        return happened


async def filled(call: Caller) -> list[str]:
    """Make jobs of all sizes, and return their ids: first one that has ended with many assets."""
    small = [jobs.CreateJobRequest(job_type="small")] * 1000
    made = list((await call.BatchCreateJobs(user_id="ada", requests=small)).jobs)
    for _ in range(6):
        creations = [jobs.CreateJobRequest(job_type="large", parameters=EMPTY_LISTS)] * 3
        made += (await call.BatchCreateJobs(user_id="ada", requests=creations)).jobs
    ended = await call.running()
    await call.MarkCompleted(job_id=ended.id, attempt=1, finish={"assets": ASSETS})
    return [ended.id, *(job.id for job in reversed(made))]


def with_ids(request: bytes, ids: Iterable[str]) -> bytes:
    """Return the request for these jobs."""
    for stand_in, job_id in zip(JOB_IDS, ids, strict=False):
        request = request.replace(stand_in.encode(), job_id.encode())
    return request


SERVICES = [
    service
    for module in (jobs, workers, queues, webhooks, operations)
    for service in module.DESCRIPTOR.services_by_name.values()
]
METHODS = [
    f"{service.name}/{method.name}"
    for service in SERVICES
    for method in service.methods
    if not method.server_streaming
]
"""All with one request and one response."""

OF_MANY_JOBS = [
    method for method in METHODS if any(word in method for word in ("List", "Claim", "BatchGet"))
]
CHANGES_OF_MANY_JOBS = [
    f"JobService/{method}" for method in ("CancelJobs", "RerunJobs", "DeleteJobs")
]
OF_ONE_JOB = [method for method in METHODS if method not in {*OF_MANY_JOBS, *CHANGES_OF_MANY_JOBS}]


@pytest.fixture
def frozen_heap() -> Iterator[None]:
    """Collect garbage as a server does: not what the tests have made, and little at a time."""
    thresholds = gc.get_threshold()
    gc.collect()
    keep_collections_short()
    yield
    gc.set_threshold(*thresholds)


@sqlite_only
@pytest.mark.slow  # it is judged by time
@pytest.mark.usefixtures("frozen_heap")
@pytest.mark.parametrize(
    "methods",
    [OF_MANY_JOBS, CHANGES_OF_MANY_JOBS, OF_ONE_JOB],
    ids=["of many jobs", "changes of many jobs", "of one job"],
)
async def test_no_request_blocks_the_event_loop(
    start: Callable[..., Awaitable[App]], methods: Iterable[str]
) -> None:
    app = await start()
    many = []
    if methods is not OF_ONE_JOB:
        async with grpc.aio.insecure_channel(app.address) as channel:
            many = await filled(Caller(channel))
    for method in methods:
        async with grpc.aio.insecure_channel(app.address) as channel:
            ids = many or [(await Caller(channel).running()).id]
        made = [with_ids(request, ids) for request in requests()[method]]
        # By another thread: only what the event loop's own computes counts.
        with Holds() as holds:
            codes = await asyncio.to_thread(send, app.address, method, made)
        assert holds.cpu <= LONGEST_HOLD, f"{method}: {holds.cpu:.3f} s of CPU, {codes}"
        assert holds.pause <= LONGEST_PAUSE, f"{method}: {holds.pause:.3f} s, {codes}"
        wrong = {"UNKNOWN", "INTERNAL", "DEADLINE_EXCEEDED"}
        assert not wrong.intersection(codes), f"{method}: {codes}"


@sqlite_only
@pytest.mark.slow  # it is judged by time
@pytest.mark.usefixtures("frozen_heap")
@pytest.mark.parametrize("what", ["empty updates", "updates of unknown jobs"])
async def test_no_message_of_work_blocks_the_event_loop(
    start: Callable[..., Awaitable[App]], what: str
) -> None:
    app = await start()
    with Holds() as holds:
        refused = await asyncio.to_thread(refused_updates, app.address, MESSAGES[what])
    assert refused == len(MESSAGES[what].updates) == MAX_UPDATES
    # 0.01 s. Where all updates are submitted or refused at once it is four times that.
    assert holds.cpu <= LONGEST_HOLD / 2, f"{holds.cpu:.3f} s of CPU"
    assert holds.pause <= LONGEST_PAUSE, f"{holds.pause:.3f} s"


@sqlite_only
@pytest.mark.slow  # it is judged by time
@pytest.mark.usefixtures("frozen_heap")
@pytest.mark.parametrize(("finishes", "assets"), [(1000, 60), (100, 800)])
async def test_no_list_of_finishes_with_assets_blocks_the_event_loop(
    start: Callable[..., Awaitable[App]], finishes: int, assets: int
) -> None:
    app = await start()
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = Caller(channel)
        creations = [jobs.CreateJobRequest(job_type="small")] * finishes
        await call.BatchCreateJobs(user_id="ada", requests=creations)
        held: list[Any] = []
        while len(held) < finishes:
            claim = call.ClaimJobs(worker_id="w", job_types=["small"], max_jobs=100)
            held += (await claim).jobs
    made = [asset_pb2.NewAsset(asset_type="a", storage_path=chr(200 + i)) for i in range(assets)]
    finish = workers.FinishUpdate(status=COMPLETED, assets=made)
    message = workers.WorkRequest(
        updates=[workers.JobUpdate(job_id=job.id, attempt=1, finish=finish) for job in held]
    )
    with Holds() as holds:
        refused = await asyncio.to_thread(refused_updates, app.address, message)
    assert refused == 0
    # 0.35 and 0.67 s where each finish counts as one, however many assets it has.
    assert holds.cpu <= LONGEST_HOLD, f"{holds.cpu:.3f} s of CPU"
    assert holds.pause <= LONGEST_PAUSE, f"{holds.pause:.3f} s"


def refused_updates(target: str, message: workers.WorkRequest) -> int:
    """Send a message on a stream of Work, and return how many of its updates are refused."""
    with grpc.insecure_channel(target) as channel:
        answers = WorkerServiceStub(channel).Work(
            iter([workers.WorkRequest(hello=HELLO), message]), timeout=20
        )
        return sum(result.HasField("error") for each in answers for result in each.results)


FAT = b"\x0a\x00" + b"\xc2\x3e\x0bxxxxxxxxxxx" * 4000
"""A request of 56 kB with 4,000 fields that no method knows: slow to parse."""


@pytest.mark.parametrize("method", ["JobService/GetJob", "WorkerService/Work"])
@sqlite_only
async def test_the_event_loop_parses_no_large_request(
    start: Callable[..., Awaitable[App]], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """300 of them would hold it for half a second."""
    parsed_in_loop: list[int] = []

    def observed(parse: Any, data: bytes, *, max_bytes: int) -> Any:
        if len(data) <= max_bytes and threading.current_thread() is threading.main_thread():
            parsed_in_loop.append(len(data))
        return parsed(parse, data, max_bytes=max_bytes)

    for module in (calls, work_requests):
        monkeypatch.setattr(module, "parsed", observed)
    app = await start()
    async with grpc.aio.insecure_channel(app.address) as channel:
        stream = channel.stream_stream(f"/jobledger.v1.{method}")()
        await stream.write(FAT)
        await stream.done_writing()
        with suppress(grpc.aio.AioRpcError):
            while await stream.read() is not grpc.aio.EOF:
                pass
        code = (await stream.code()).name
    assert parsed_in_loop == []
    assert code == "INVALID_ARGUMENT"
