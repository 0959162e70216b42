"""The messages of every measurement: of the size that real jobs have, the same for both sides."""

import uuid
from collections.abc import Iterator

from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from jobledger.v1 import job_pb2, job_service_pb2

USER = "benchmark"

_LABELS = {"project": "apollo", "priority": "high"}
_WORKER = "worker-1"


def _parameters() -> Struct:
    parameters = Struct()
    parameters.update(
        {
            "prompt": "a lighthouse at dusk, seen from the sea",
            "model": "painter-4",
            "width": 1024,
            "height": 768,
            "steps": 30,
            "upscale": True,
        }
    )
    return parameters


def create_requests() -> Iterator[job_service_pb2.CreateJobRequest]:
    """Yield requests without end, each with a `request_id` of its own, as the client sends it."""
    prefix = uuid.uuid4().hex
    number = 0
    while True:
        request = job_service_pb2.CreateJobRequest()
        request.CopyFrom(_CREATE)
        request.request_id = f"{prefix}-{number}"
        yield request
        number += 1


_CREATE = job_service_pb2.CreateJobRequest(
    user_id=USER, job_type="render", parameters=_parameters(), labels=_LABELS
)


def full_job() -> job_pb2.Job:
    """Return a running job with every field that a running job has."""
    now = Timestamp(seconds=1_700_000_000, nanos=123_456_000)
    return job_pb2.Job(
        id="019a0000-0000-7000-8000-000000000000",
        user_id=USER,
        job_type="render",
        status=job_pb2.JOB_STATUS_PROCESSING,
        progress=42,
        progress_message="step 12345",
        parameters=_parameters(),
        labels=_LABELS,
        attempt=1,
        worker_id=_WORKER,
        create_time=now,
        start_time=now,
        update_time=now,
        version=12345,
    )
