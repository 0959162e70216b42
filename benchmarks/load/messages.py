"""The requests of every measurement, as the client sends them."""

import itertools
import random
import struct
import time
import uuid
from collections.abc import Iterator

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from benchmarks.load import JOB_TYPE, LABELS, PARAMETERS, USER
from jobledger.v1.job_service_pb2 import CreateJobRequest
from jobledger.v1.worker_service_pb2 import (
    JobUpdate,
    OutputUpdate,
    ProgressUpdate,
    UpdateProgressRequest,
)

_PARAMETERS: Struct = json_format.ParseDict(PARAMETERS, Struct())

SENT = struct.Struct("<d")
"""An append begins with when it was sent, by the monotonic clock."""

_random = random.Random(1)
_LOG = b"".join(
    b"12:00:%06.3f INFO render: frame %d of 9000 done in %.2f ms\n"
    % (_random.random() * 60, _random.randrange(9000), _random.random() * 60)
    for _ in range(256)
)


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


def update(job_id: str, version: int, *, timed: bool = False) -> JobUpdate:
    """Return the same as an update of Work. A `timed` one says when it was sent."""
    news = _news(version)
    if timed:
        news.progress_message = repr(time.monotonic())
    return JobUpdate(job_id=job_id, attempt=1, progress=news)


def append(job_id: str, number: int, size: int) -> JobUpdate:
    """Return an append of that many bytes, as an update of Work."""
    begin = number * 37 % 4096
    data = SENT.pack(time.monotonic()) + _LOG[begin : begin + size - SENT.size]
    return JobUpdate(job_id=job_id, attempt=1, output=OutputUpdate(data=data, number=number))


def _news(version: int) -> ProgressUpdate:
    return ProgressUpdate(progress=min(99, version // 10), progress_message=f"step {version:06}")
