"""What the service says about a call that it refused."""

from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status


def read_error(error: grpc.RpcError) -> dict[str, Any]:
    """Read the google.rpc.Status in the trailer grpc-status-details-bin."""
    failure: dict[str, Any] = {
        "event": "error",
        "code": error.code().name,
        "message": error.details(),
        "reason": "",
        "metadata": {},
        "field_violations": [],
        "precondition_violations": [],
        "retry_delay_ms": None,
    }
    # What a call raises is that call.
    status = rpc_status.from_call(error) if isinstance(error, grpc.Call) else None
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    precondition = error_details_pb2.PreconditionFailure()
    retry = error_details_pb2.RetryInfo()
    if status is None:
        return failure
    for detail in status.details:
        if detail.Unpack(info) and info.domain == "jobledger":
            failure["reason"] = info.reason
            failure["metadata"] = dict(info.metadata)
        elif detail.Unpack(request):
            failure["field_violations"] += [
                {"field": each.field, "description": each.description}
                for each in request.field_violations
            ]
        elif detail.Unpack(precondition):
            failure["precondition_violations"] += [
                {"type": each.type, "subject": each.subject, "description": each.description}
                for each in precondition.violations
            ]
        elif detail.Unpack(retry):
            failure["retry_delay_ms"] = retry.retry_delay.ToMilliseconds()
    return failure
