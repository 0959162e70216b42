"""The messages of every measurement: of the size that real jobs have, the same for both sides."""

import itertools
import uuid
from collections.abc import Iterator

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from jobledger.v1 import job_pb2, job_service_pb2, worker_service_pb2

USER = "benchmark"

BATCH = 500
"""Jobs of one BatchCreateJobs."""

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


def create_bodies() -> Iterator[bytes]:
    """Yield the same requests serialized: of each only its number is made anew."""
    start = _without_number(_first_of_many())
    for number in itertools.count():
        yield b"%b%07d" % (start, number)


def batch_bodies() -> Iterator[bytes]:
    """Yield serialized BatchCreateJobsRequests without end, each of BATCH such requests."""
    owner = job_service_pb2.BatchCreateJobsRequest(user_id=USER).SerializeToString()
    one = job_service_pb2.BatchCreateJobsRequest(requests=[_first_of_many()])
    start = _without_number(one)
    for first in itertools.count(0, BATCH):
        numbers = range(first, first + BATCH)
        # Messages one behind the other are one message: their requests add up.
        yield owner + b"".join([b"%b%07d" % (start, number) for number in numbers])


def _first_of_many() -> job_service_pb2.CreateJobRequest:
    request = job_service_pb2.CreateJobRequest()
    request.CopyFrom(_CREATE)
    request.request_id = f"{uuid.uuid4().hex}-{0:07}"
    return request


def _without_number(message: Message) -> bytes:
    data = message.SerializeToString()
    # Fields are written in the order of their numbers, and the request id has the greatest.
    assert data.endswith(b"-0000000")
    return data[:-7]


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


def acknowledgement() -> worker_service_pb2.ReportProgressResponse:
    """Return what a report of progress is answered with: of the job only what is new."""
    job = full_job()
    return worker_service_pb2.ReportProgressResponse(
        job=job_pb2.Job(
            id=job.id,
            status=job.status,
            progress=job.progress,
            attempt=job.attempt,
            version=job.version,
            update_time=job.update_time,
            lease_expire_time=job.update_time,
        ),
        applied=True,
    )
