"""What the fake service of these tests answers in place of its usual answer."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from jobledger.v1 import worker_service_pb2 as pb
from jobledger.v1.job_pb2 import Job, JobStatus

Context = grpc.aio.ServicerContext[Any, Any]
Rule = Callable[[Any, Context], Awaitable[Any]]


def refuse(code: grpc.StatusCode, times: int | None = None, words: str = "scripted") -> Rule:
    """Make a rule that refuses a call so often; always, without `times`."""
    left = [times]

    async def rule(request: Any, context: Context) -> None:
        if left[0] is not None:
            if left[0] == 0:
                return
            left[0] -= 1
        await context.abort(code, words)

    return rule


def refuse_with(reason: str) -> Rule:
    """Make a rule that refuses each call as the service does, for this reason."""
    packed = AnyMessage()
    packed.Pack(ErrorInfo(reason=reason, domain="jobledger"))
    status = Status(code=grpc.StatusCode.ABORTED.value[0], message="scripted", details=[packed])

    async def rule(request: Any, context: Context) -> None:
        await context.abort_with_status(rpc_status.to_status(status))

    return rule


async def asks_to_cancel(request: Any, context: Context) -> pb.UpdateProgressResponse:
    job = Job(id=request.job_id, status=JobStatus.JOB_STATUS_PROCESSING, cancel_reason="not needed")
    return pb.UpdateProgressResponse(job=job, applied=True, cancel_requested=True)
