"""Requests are refused by what their bytes show, before they are parsed."""

import pytest
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import NULL_VALUE, Struct, Value

from jobledger.v1.job_service_pb2 import BatchCreateJobsRequest, CreateJobRequest
from jobledger.v1.worker_service_pb2 import WorkRequest
from jobledger_server.domain.limits import MAX_MESSAGE_BYTES
from jobledger_server.rpc import field_counts
from jobledger_server.rpc.field_counts import MAX_FIELDS
from jobledger_server.rpc.incoming import parsed
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


KEYS = 2000
"""As many as are permitted in these tests: the real limit's take the parser long."""


@pytest.fixture
def few_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(field_counts, "MAX_KEYS", KEYS)


PARAMETERS = CreateJobRequest.DESCRIPTOR.fields_by_name["parameters"].number


def keys(count: int) -> Struct:
    return Struct(fields={f"{key:05x}": Value(null_value=NULL_VALUE) for key in range(count)})


def hidden(count: int) -> bytes:
    """Return a Struct whose keys have tags of two bytes."""
    entries = (b"\x8a\x00\x05%05x\x12\x02\x08\x00" % key for key in range(count))
    return b"".join(b"\x0a%c" % len(each) + each for each in entries)


def text(lines: int) -> Struct:
    return Struct(fields={"log": Value(string_value="\n" * lines)})


def batch(*structs: Struct) -> bytes:
    creations = [CreateJobRequest(parameters=each) for each in structs]
    return BatchCreateJobsRequest(requests=creations).SerializeToString()


def test_the_hidden_keys_are_some() -> None:
    assert len(Struct.FromString(hidden(10)).fields) == 10


@pytest.mark.parametrize(
    "data",
    [
        batch(keys(KEYS + 1)),
        batch(*[keys(1 + KEYS // 50)] * 50),
        batch(Struct(fields={"a": Value(struct_value=keys(KEYS))})),
        GROUP + field(2, field(PARAMETERS, hidden(KEYS + 1))),
    ],
    ids=["in one Struct", "of many jobs", "in a Struct in one", "hidden"],
)
@pytest.mark.usefixtures("few_keys")
def test_a_request_with_too_many_keys_of_maps_is_not_parsed(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="more than 65536 keys"):
        parsed(BatchCreateJobsRequest, data, max_bytes=MAX_MESSAGE_BYTES)


@pytest.mark.parametrize(
    "data",
    [batch(*[keys(KEYS // 8)] * 8), batch(text(10 * KEYS))],
    ids=["many keys", "a long text"],
)
@pytest.mark.usefixtures("few_keys")
def test_one_with_fewer_is_parsed(data: bytes) -> None:
    assert parsed(BatchCreateJobsRequest, data, max_bytes=MAX_MESSAGE_BYTES).requests
