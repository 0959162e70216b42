"""What a failed call, or a failed part of one, is answered; what it hides goes to the log."""

import logging
import uuid

from google.rpc import error_details_pb2, status_pb2

from jobledger.v1 import worker_service_pb2
from jobledger.v1.error_reason_pb2 import ErrorReason
from jobledger_server.rpc.status import internal_status, status_of

log = logging.getLogger("jobledger.rpc")


def answer_to(error: Exception) -> status_pb2.Status:
    """Return the status of an error. A bug is told by an id, under which the log has the rest."""
    status = status_of(error)
    if status is None:
        correlation_id = uuid.uuid4().hex
        log.error("internal_error", exc_info=error, extra={"correlation_id": correlation_id})
        status = internal_status(correlation_id)
    return status


def report_error(error: Exception) -> worker_service_pb2.ReportError:
    """Return the same for one report of a stream."""
    status = answer_to(error)
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return worker_service_pb2.ReportError(
        code=status.code,
        reason=ErrorReason.Value(f"ERROR_REASON_{info.reason}"),
        message=status.message,
        metadata=info.metadata,
    )
