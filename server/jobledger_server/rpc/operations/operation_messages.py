"""Jobs to google.longrunning.Operation: what is an answer, what is an error, and with which code.

The whole Job is both `metadata` and `response`, because whoever waits for an
operation is handed the response alone: a PARTIAL job's error is in it, and so is
which of COMPLETED and PARTIAL the job became.
"""

from collections.abc import Mapping
from typing import Any, assert_never

from google.longrunning import operations_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.struct_pb2 import Struct
from google.rpc import code_pb2, error_details_pb2, status_pb2

from jobledger.v1 import job_pb2
from jobledger_server.domain.job import Job, JobError, JobStatus
from jobledger_server.domain.leases import (
    CANCELLED,
    LEASE_EXPIRED,
    QUEUE_EXPIRED,
    RUN_EXPIRED,
)
from jobledger_server.domain.state_machine import TERMINAL
from jobledger_server.rpc.messages import job_bytes
from jobledger_server.rpc.operations.operation_requests import COLLECTION

JOB_DOMAIN = "jobs.jobledger"
"""The domain of the reasons why jobs fail. Those of refused calls are in another, so that a
worker's own `INTERNAL` is never taken for the server's."""

CODES: Mapping[str, Any] = {
    CANCELLED: code_pb2.CANCELLED,
    QUEUE_EXPIRED: code_pb2.DEADLINE_EXCEEDED,
    RUN_EXPIRED: code_pb2.DEADLINE_EXCEEDED,
    # Not UNAVAILABLE: that asks for the same call again, and this operation will not change.
    LEASE_EXPIRED: code_pb2.ABORTED,
}
"""The code for each reason of the service's own. A worker's words are not gRPC's: UNKNOWN."""


_JOB, _STRUCT = (
    f"type.googleapis.com/{kind.DESCRIPTOR.full_name}" for kind in (job_pb2.Job, Struct)
)


def operation_message(job: Job) -> operations_pb2.Operation:
    # Of bytes, as all answers with jobs are: to parse a job only to serialize it would hold the
    # event loop.
    packed = AnyMessage(type_url=_JOB, value=job_bytes(job))
    operation = operations_pb2.Operation(
        name=f"{COLLECTION}/{job.id}", metadata=packed, done=job.status in TERMINAL
    )
    match job.status:
        case JobStatus.QUEUED | JobStatus.PROCESSING:
            pass
        case JobStatus.COMPLETED | JobStatus.PARTIAL:
            operation.response.CopyFrom(packed)
        case JobStatus.FAILED:
            operation.error.CopyFrom(_failure(job))
        case _:
            assert_never(job.status)
    return operation


def _failure(job: Job) -> status_pb2.Status:
    error = job.error or JobError("UNKNOWN", "")  # a failed job has one
    info = error_details_pb2.ErrorInfo(
        reason=error.reason,
        domain=JOB_DOMAIN,
        metadata={"job_id": job.id, "job_type": job.job_type, "attempt": str(job.attempt)},
    )
    packed = AnyMessage()
    packed.Pack(info)
    details = [packed]
    if error.details is not None:
        details.append(AnyMessage(type_url=_STRUCT, value=error.details))
    return status_pb2.Status(
        code=CODES.get(error.reason, code_pb2.UNKNOWN), message=error.message, details=details
    )
