"""Converts requests for output. Raises InvalidRequest."""

from dataclasses import dataclass

from jobledger.v1 import job_service_pb2 as pb
from jobledger_server.domain.job import JobId
from jobledger_server.domain.limits import MAX_OUTPUT_PIECE_BYTES
from jobledger_server.rpc import fields
from jobledger_server.rpc.validation import Checker


@dataclass(frozen=True, slots=True)
class OutputPlace:
    """A place in a stream of a job's output.

    Attributes:
        job_id: The job.
        user_id: The owner on whose behalf the call is made.
        stream: The name of the stream.
        offset: Where the place is, if `last_bytes` is None.
        last_bytes: How far it is before the end.
    """

    job_id: JobId
    user_id: str
    stream: str
    offset: int
    last_bytes: int | None

    def cursor(self, end: int) -> int:
        """Return the offset of the place in a stream that ends there."""
        return self.offset if self.last_bytes is None else max(0, end - self.last_bytes)


def watched(request: pb.WatchOutputRequest) -> OutputPlace:
    with Checker() as check:
        return _place(check, request, "after_offset", request.after_offset)


def read(request: pb.ReadOutputRequest) -> tuple[OutputPlace, int]:
    """Return the place, and how many bytes to read."""
    with Checker() as check:
        check.number("max_bytes", request.max_bytes, 0, MAX_OUTPUT_PIECE_BYTES)
        place = _place(check, request, "offset", request.offset)
    return place, request.max_bytes or MAX_OUTPUT_PIECE_BYTES


def _place(
    check: Checker,
    request: pb.WatchOutputRequest | pb.ReadOutputRequest,
    name: str,
    offset: int,
) -> OutputPlace:
    last = check.at_least_zero("last_bytes", request.last_bytes)
    return OutputPlace(
        job_id=fields.job_id(check, request.job_id),
        user_id=fields.user_id(check, request.user_id),
        stream=check.stream_name("stream", request.stream),
        offset=check.at_least_zero(name, offset),
        last_bytes=last if request.HasField("last_bytes") else None,
    )
