"""The requests of every measurement, as the client sends them."""

import itertools
import uuid
from collections.abc import Iterator

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from benchmarks.load import JOB_TYPE, LABELS, PARAMETERS, USER
from jobledger.v1.job_service_pb2 import CreateJobRequest
from jobledger.v1.worker_service_pb2 import JobUpdate, ProgressUpdate, UpdateProgressRequest

_PARAMETERS: Struct = json_format.ParseDict(PARAMETERS, Struct())


def create_requests(user_id: str = USER, job_type: str = JOB_TYPE) -> Iterator[CreateJobRequest]:
    """Yield requests without end, each with a `request_id` of its own."""
    prefix = uuid.uuid4().hex
    for number in itertools.count():
        yield CreateJobRequest(
            user_id=user_id,
            job_type=job_type,
            parameters=_PARAMETERS,
            labels=LABELS,
            request_id=f"{prefix}-{number}",
        )


def report(job_id: str, version: int) -> UpdateProgressRequest:
    """Return a report of progress that is news of a job which has a version."""
    return UpdateProgressRequest(job_id=job_id, attempt=1, progress=_news(version))


def update(job_id: str, version: int) -> JobUpdate:
    """Return the same as an update of Work."""
    return JobUpdate(job_id=job_id, attempt=1, progress=_news(version))


def _news(version: int) -> ProgressUpdate:
    return ProgressUpdate(progress=min(99, version // 10), progress_message=f"step {version:06}")
