"""Requests are refused by what their bytes show, before they are parsed."""

import pytest
from google.protobuf.message import Message

from jobledger.v1.job_service_pb2 import BatchCreateJobsRequest, CreateJobRequest
from jobledger.v1.worker_service_pb2 import WorkRequest
from jobledger_server.domain.limits import MAX_MESSAGE_BYTES
from jobledger_server.rpc.incoming import MAX_FIELDS, parsed
from jobledger_server.rpc.validation import InvalidRequest

LABELS = b"\x22\x00" * 2 * MAX_FIELDS

GROUP = b"\x7b\x7c"
"""An unknown field of the kind that no message here has, and that parsers skip."""


@pytest.mark.parametrize("before", [b"", GROUP, b"\x7b\x08\x01\x7c"])
def test_a_request_with_too_many_fields_is_not_parsed_whatever_is_before_them(
    before: bytes,
) -> None:
    with pytest.raises(InvalidRequest, match="more than 4096 fields"):
        parsed(CreateJobRequest, before + LABELS, max_bytes=MAX_MESSAGE_BYTES)


def field(number: int, content: bytes) -> bytes:
    """Encode a field that is a message of more than 127 and less than 2 MiB bytes."""
    size = len(content)
    length = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14])
    return bytes([number << 3 | 2]) + length + content


@pytest.mark.parametrize(
    ("message", "data"),
    [
        (BatchCreateJobsRequest, field(2, LABELS)),
        (WorkRequest, field(3, field(5, LABELS))),
    ],
)
def test_neither_is_one_whose_inner_messages_have_too_many(
    message: type[Message], data: bytes
) -> None:
    assert message.FromString(data) != message()  # the parser would take it
    with pytest.raises(InvalidRequest, match="more than 4096 fields"):
        parsed(message, data, max_bytes=MAX_MESSAGE_BYTES)


def test_a_struct_may_have_more_fields() -> None:
    request = CreateJobRequest()
    request.parameters.update({str(key): key for key in range(2 * MAX_FIELDS)})
    data = request.SerializeToString()
    assert parsed(CreateJobRequest, data, max_bytes=MAX_MESSAGE_BYTES) == request


def test_a_large_request_with_a_group_is_parsed() -> None:
    data = GROUP + CreateJobRequest(user_id="x" * 10_000).SerializeToString()
    request = parsed(CreateJobRequest, data, max_bytes=MAX_MESSAGE_BYTES)
    assert len(request.user_id) == 10_000
