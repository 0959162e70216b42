"""Requests are refused by what their bytes show, before they are parsed."""

import pytest

from jobledger.v1.job_service_pb2 import CreateJobRequest
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
    parses: list[bytes] = []
    with pytest.raises(InvalidRequest, match="more than 4096 fields"):
        parsed(parses.append, before + LABELS, max_bytes=MAX_MESSAGE_BYTES)
    assert parses == []


def test_a_large_request_with_a_group_is_parsed() -> None:
    data = GROUP + CreateJobRequest(user_id="x" * 10_000).SerializeToString()
    request = parsed(CreateJobRequest.FromString, data, max_bytes=MAX_MESSAGE_BYTES)
    assert len(request.user_id) == 10_000
