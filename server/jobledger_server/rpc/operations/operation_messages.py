"""Converts jobs to google.longrunning.Operation: results, errors and their codes.

The whole Job is both `metadata` and `response`, because a client library that waits for an
operation returns only the response. It contains a PARTIAL job's error, and whether the job is
COMPLETED or PARTIAL.
"""

from collections.abc import Mapping
from typing import Any, assert_never

from google.longrunning import operations_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.struct_pb2 import Struct
from google.rpc import code_pb2, error_details_pb2, status_pb2

from jobledger.v1 import job_pb2
from jobledger_server.domain.job import CANCELLED, Job, JobError, JobStatus, Payload
from jobledger_server.domain.leases import (
    LEASE_EXPIRED,
    QUEUE_EXPIRED,
    RUN_EXPIRED,
    STALLED,
)
from jobledger_server.domain.state_machine import TERMINAL
from jobledger_server.rpc.messages import job_bytes
from jobledger_server.rpc.operations.operation_requests import COLLECTION
from jobledger_server.store import StoredJob

JOB_DOMAIN = "jobs.jobledger"
"""The domain of the reasons of failed jobs. The reasons of refused calls are in another domain, so
a worker's `INTERNAL` differs from the server's."""

CODES: Mapping[str, Any] = {
    CANCELLED: code_pb2.CANCELLED,
    QUEUE_EXPIRED: code_pb2.DEADLINE_EXCEEDED,
    RUN_EXPIRED: code_pb2.DEADLINE_EXCEEDED,
    # Not UNAVAILABLE, which asks for a retry: this operation does not change any more.
    LEASE_EXPIRED: code_pb2.ABORTED,
    STALLED: code_pb2.ABORTED,
}
"""The codes of the service's own reasons. Reasons that workers send are UNKNOWN."""


_JOB, _STRUCT = (
    f"type.googleapis.com/{kind.DESCRIPTOR.full_name}" for kind in (job_pb2.Job, Struct)
)


def operation_message(read: StoredJob) -> operations_pb2.Operation:
    # From bytes, as in all answers with jobs: parsing a job only to serialize it again would block
    # the event loop.
    job = read.job
    packed = AnyMessage(type_url=_JOB, value=job_bytes(job, read.payloads, to_owner=True))
    operation = operations_pb2.Operation(
        name=f"{COLLECTION}/{job.id}", metadata=packed, done=job.status in TERMINAL
    )
    match job.status:
        case JobStatus.QUEUED | JobStatus.PROCESSING:
            pass
        case JobStatus.COMPLETED | JobStatus.PARTIAL:
            operation.response.CopyFrom(packed)
        case JobStatus.FAILED:
            operation.error.CopyFrom(_failure(job, read.payloads.error_details))
        case _:
            assert_never(job.status)
    return operation


def _failure(job: Job, error_details: Payload | None) -> status_pb2.Status:
    error = job.error or JobError("UNKNOWN", "")  # a failed job has one
    info = error_details_pb2.ErrorInfo(
        reason=error.reason,
        domain=JOB_DOMAIN,
        metadata={"job_id": job.id, "job_type": job.job_type, "attempt": str(job.attempt)},
    )
    code = CODES.get(error.reason, code_pb2.UNKNOWN)
    status = status_pb2.Status(code=code, message=error.message)
    status.details.add().Pack(info)
    if error_details is not None:
        status.details.add(type_url=_STRUCT, value=error_details)
    return status
