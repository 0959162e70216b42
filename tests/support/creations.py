"""Creations that say each field of the contract: values are made from its descriptor."""

import time
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from jobledger.v1.job_pb2 import Group, JobError, OutputStream, RetryPolicy
from jobledger.v1.job_service_pb2 import CreateJobRequest, GroupOptions

FIELDS: Mapping[str, FieldDescriptor] = {
    field.name: field for field in CreateJobRequest.DESCRIPTOR.fields
}
"""The fields of a creation, by name."""

TOMORROW = Timestamp(seconds=int(time.time()) + 86400)

OWN: Mapping[str, Any] = {"user_id": "ada", "job_type": "render"}
"""What each creation says."""

OF_GROUPS = {"group", "group_id", "group_index"}
"""The fields that no creation has with all the others: a group has few of these, and `group_id`
names a group that exists."""


def sample(name: str) -> Any:
    """Return a value of a field that no creation has by default, nor another field of its type."""
    return OWN.get(name) or sample_of(FIELDS[name])


def sample_of(field: FieldDescriptor) -> Any:
    """Return a value of any field of a creation or a job."""
    name = field.name
    if field.message_type is None:
        numbers = {FieldDescriptor.CPPTYPE_STRING: f"a {name}", FieldDescriptor.CPPTYPE_BOOL: True}
        if field.enum_type is not None:
            return field.enum_type.values[-1].number
        return numbers.get(field.cpp_type, 7)
    if field.message_type.GetOptions().map_entry:
        return {"a": name}
    values: dict[Any, Any] = {
        Duration.DESCRIPTOR: Duration(seconds=1000 + field.number),
        Timestamp.DESCRIPTOR: TOMORROW,
        Struct.DESCRIPTOR: Struct(fields={"a": Value(string_value=name)}),
        RetryPolicy.DESCRIPTOR: RetryPolicy(max_attempts=7),
        JobError.DESCRIPTOR: JobError(message=name),
        Group.DESCRIPTOR: Group(total=1, queued=1, sealed=True),
        GroupOptions.DESCRIPTOR: GroupOptions(fail_fast=True),
    }
    if field.message_type is OutputStream.DESCRIPTOR:
        return [OutputStream(name="a", content_type="a/b"), OutputStream(content_type="c/d")]
    return values[field.message_type]


def filled(*without: str) -> dict[str, Any]:
    """Return a creation with a value in each field but these. It is due at once, or by `delay`.

    It is in no group.
    """
    left_out = {*without, *OF_GROUPS, "schedule_time"}
    return {name: sample(name) for name in FIELDS if name not in left_out}
