"""Checks and converts the fields that requests of several services have."""

from collections.abc import Callable, Sequence

from google.protobuf.struct_pb2 import Struct

from jobledger.v1 import job_pb2
from jobledger_server.domain.job import JobId, JobStatus, Payload
from jobledger_server.domain.limits import (
    MAX_ID_CHARACTERS,
    MAX_JOB_TYPES,
    MAX_NAME_CHARACTERS,
    MAX_PAGE_SIZE,
    MAX_STATUSES,
)
from jobledger_server.rpc.validation import Checker

STATUSES = {job_pb2.JobStatus.Value(f"JOB_STATUS_{s.value}"): s for s in JobStatus}


def job_id(check: Checker, value: str) -> JobId:
    return JobId(check.name("job_id", value, MAX_ID_CHARACTERS))


def user_id(check: Checker, value: str, *, required: bool = True) -> str:
    return check.name("user_id", value, MAX_NAME_CHARACTERS, required=required)


def worker_id(check: Checker, value: str, *, required: bool = True) -> str:
    return check.name("worker_id", value, MAX_NAME_CHARACTERS, required=required)


def request_id(check: Checker, value: str) -> str:
    return check.name("request_id", value, MAX_NAME_CHARACTERS, required=False)


def job_types(check: Checker, values: Sequence[str]) -> frozenset[str]:
    if not check.at_most("job_types", values, MAX_JOB_TYPES):
        return frozenset()
    return frozenset(check.job_type(f"job_types[{i}]", value) for i, value in enumerate(values))


def statuses(check: Checker, field: str, values: Sequence[int]) -> list[JobStatus]:
    if not check.at_most(field, values, MAX_STATUSES):
        return []
    found = []
    for value in values:
        if value in STATUSES:
            found.append(STATUSES[job_pb2.JobStatus.ValueType(value)])
        else:
            check.add(field, "is required" if value == 0 else f"has the unknown value {value}")
    return found


def check_page_size(check: Checker, size: int) -> None:
    check.number("page_size", size, 0, MAX_PAGE_SIZE)


def optional_struct(
    check: Checker, field: str, struct: Struct, has: Callable[..., bool]
) -> Payload | None:
    """Check the Struct if the message has it; `has` is the message's HasField."""
    return check.struct(field, struct) if has(field) else None
