"""Calls the server as a client in any language would: raw messages over a channel."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from jobledger.internal.v1alpha1 import webhook_delivery_service_pb2
from jobledger.internal.v1alpha1.webhook_delivery_service_pb2_grpc import (
    WebhookDeliveryServiceStub,
)
from jobledger.v1 import (
    job_pb2,
    job_service_pb2,
    queue_service_pb2,
    webhook_service_pb2,
    worker_service_pb2,
)
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.queue_service_pb2_grpc import QueueServiceStub
from jobledger.v1.webhook_service_pb2_grpc import WebhookServiceStub
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub

QUEUED = job_pb2.JOB_STATUS_QUEUED
PROCESSING = job_pb2.JOB_STATUS_PROCESSING
COMPLETED = job_pb2.JOB_STATUS_COMPLETED
PARTIAL = job_pb2.JOB_STATUS_PARTIAL
FAILED = job_pb2.JOB_STATUS_FAILED

BASIC, FULL = job_pb2.JOB_VIEW_BASIC, job_pb2.JOB_VIEW_FULL

BIG_LABELS = {f"{i:02}": "\U0001f3ac" * 255 for i in range(32)}
"""33 KB: as large as a job can be that has no payloads."""

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
"""Channels with the same options would share one."""

SMALL_WINDOW = [
    # Small buffers: if the client does not read, the server blocks almost at once.
    ("grpc.http2.lookahead_bytes", 1024),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
"""Options of the channel of a client that stalls."""

TOO_SLOW = "the database did not answer in time"
"""What UNAVAILABLE says if the database takes too long: for a list, longer than two seconds. On a
busy machine that is no defect, and the call may be sent again."""

_MODULES = (
    *(job_service_pb2, worker_service_pb2, queue_service_pb2, webhook_service_pb2),
    webhook_delivery_service_pb2,
)


def policy(count: int) -> job_pb2.RetryPolicy:
    """Return a policy of so many attempts, with the shortest pauses between them."""
    shortest = Duration(nanos=100_000_000)
    return job_pb2.RetryPolicy(max_attempts=count, initial_backoff=shortest, max_backoff=shortest)


class Caller:
    """`await call.CreateJob(user_id=…)`; `call.WatchJob(…)` gives the stream."""

    def __init__(
        self, channel: grpc.aio.Channel, *, timeout: float = 30, token: str | None = None
    ) -> None:
        self._timeout = timeout
        self._metadata = None if token is None else [("authorization", f"Bearer {token}")]
        self._stubs = (
            JobServiceStub(channel),
            WorkerServiceStub(channel),
            QueueServiceStub(channel),
            WebhookServiceStub(channel),
            WebhookDeliveryServiceStub(channel),
        )

    def __getattr__(self, name: str) -> Any:
        method = next(getattr(s, name) for s in self._stubs if hasattr(s, name))
        request_type = next(
            getattr(m, f"{name}Request") for m in _MODULES if hasattr(m, f"{name}Request")
        )

        def call(**fields: Any) -> Any:
            return method(request_type(**fields), timeout=self._timeout, metadata=self._metadata)

        return call

    async def job(self, user_id: str = "ada", job_type: str = "render", **fields: Any) -> Any:
        """Create a job and return it."""
        return (await self.CreateJob(user_id=user_id, job_type=job_type, **fields)).job

    async def running(self, **fields: Any) -> Any:
        """Create a job, start it, and return it."""
        job = await self.job(**fields)
        return (
            await self.TransitionJob(job_id=job.id, target_status=PROCESSING, worker_id="w1")
        ).job

    async def ended(self, **fields: Any) -> Any:
        """Create a job, start it, complete it, and return it."""
        job = await self.running(**fields)
        return (await self.MarkCompleted(job_id=job.id, attempt=1)).job


@asynccontextmanager
async def calling(target: str, options: Any = None) -> AsyncIterator[Caller]:
    """Call the server at an address over a channel."""
    async with grpc.aio.insecure_channel(target, options) as channel:
        yield Caller(channel)


@dataclass(frozen=True)
class Refusal:
    """A decoded error."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: dict[str, str]
    details: dict[str, Any]
    """By message name: BadRequest, RetryInfo, …"""


def decoded(error: grpc.RpcError) -> Refusal:
    """Decode an error's details; every error of the service has them."""
    status = rpc_status.from_call(error)
    assert status is not None, f"no details: {error}"
    details = {}
    for packed in status.details:
        name = packed.TypeName().removeprefix("google.rpc.")
        message = getattr(error_details_pb2, name)()
        packed.Unpack(message)
        details[name] = message
    info = details.pop("ErrorInfo")
    assert info.domain == "jobledger"
    assert status.message == error.details()
    return Refusal(error.code(), status.message, info.reason, dict(info.metadata), details)


async def refusal(awaitable: Any) -> Refusal:
    """Await a call that must fail and return why it did."""
    try:
        answer = await awaitable
    except grpc.RpcError as error:
        return decoded(error)
    raise AssertionError(f"not refused: {answer}")


@asynccontextmanager
async def watching(stream: Any) -> AsyncIterator[Any]:
    """Read a stream and cancel it at the end of the block."""
    try:
        yield stream
    finally:
        stream.cancel()
