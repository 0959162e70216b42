"""How the channel to the service behaves."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import grpc

from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger.v1.queue_service_pb2_grpc import QueueServiceStub
from jobledger.v1.worker_service_pb2_grpc import WorkerServiceStub

# gRPC must not retry streams: only the program that opened one knows where to resume. Nor
# claims: one whose answer was lost may have claimed a job.
SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [
                {"service": "jobledger.v1.JobService"},
                {"service": "jobledger.v1.QueueService"},
                {"service": "jobledger.v1.WorkerService"},
            ],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "3s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        },
        {
            "name": [
                {"service": "jobledger.v1.JobService", "method": "WatchJob"},
                {"service": "jobledger.v1.JobService", "method": "WatchJobs"},
                {"service": "jobledger.v1.JobService", "method": "WatchOutput"},
                {"service": "jobledger.v1.WorkerService", "method": "Work"},
                {"service": "jobledger.v1.WorkerService", "method": "ClaimJobs"},
            ]
        },
    ]
}

OPTIONS = [
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    # What does not fit is not retried; the default is less than the largest parameters.
    ("grpc.per_rpc_retry_buffer_size", 2 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    # Without this, pings stop after the second one where no data is sent.
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]

DEADLINE = 10.0
"""Seconds that a unary call may take, its retries included."""


class Client(NamedTuple):
    """The stubs of the services, on one channel."""

    jobs: JobServiceStub
    queues: QueueServiceStub
    workers: WorkerServiceStub


@contextmanager
def connect(target: str) -> Iterator[Client]:
    # grpc.secure_channel(target, grpc.ssl_channel_credentials(), OPTIONS) where it has TLS.
    with grpc.insecure_channel(target, OPTIONS) as channel:
        yield Client(JobServiceStub(channel), QueueServiceStub(channel), WorkerServiceStub(channel))
