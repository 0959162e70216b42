"""Jobs to bytes, as protobuf's wire format has them, without making a message first.

A Job has 23 fields and is in nearly every answer: made as a message first it was
what cost most of a call (docs/decisions/0024), and its Structs, which are kept
serialized, were parsed only to be serialized again. See
https://protobuf.dev/programming-guides/encoding/; the numbers of the fields are read
from the protos' own descriptors.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TypeVar, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from jobledger.v1 import job_pb2
from jobledger_server.domain.model import Instant, Job, JobError, JobStatus

Answer = TypeVar("Answer", bound=Message)

_VARINT, _LENGTH = 0, 2
_NUMBERS = frozenset(
    (
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_ENUM,
        FieldDescriptor.TYPE_BOOL,
    )
)


def varint(number: int) -> bytes:
    """Encode an integer from 0 to 2^64 - 1."""
    if number < len(_SMALL):
        return _SMALL[number]
    encoded = bytearray()
    while number > 0x7F:  # noqa: PLR2004
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_SMALL: tuple[bytes, ...] = ()
_SMALL = tuple(varint(number) for number in range(2048))


def tag_of(message: Descriptor, name: str) -> bytes:
    """Return what begins a field."""
    field = message.fields_by_name[name]
    return varint(field.number << 3 | (_VARINT if field.type in _NUMBERS else _LENGTH))


def _tag(name: str) -> bytes:
    return tag_of(job_pb2.Job.DESCRIPTOR, name)


_ID = _tag("id")
_USER_ID = _tag("user_id")
_JOB_TYPE = _tag("job_type")
_PROGRESS = _tag("progress")
_PROGRESS_MESSAGE = _tag("progress_message")
_PARAMETERS = _tag("parameters")
_RESULT = _tag("result")
_ERROR = _tag("error")
_LABELS = _tag("labels")
_ATTEMPT = _tag("attempt")
_MAX_ATTEMPTS = _tag("max_attempts")
_WORKER_ID = _tag("worker_id")
_CREATE_TIME = _tag("create_time")
_START_TIME = _tag("start_time")
_UPDATE_TIME = _tag("update_time")
_COMPLETE_TIME = _tag("complete_time")
_LEASE_EXPIRE_TIME = _tag("lease_expire_time")
_QUEUE_EXPIRE_TIME = _tag("queue_expire_time")
_CANCEL_REQUEST_TIME = _tag("cancel_request_time")
_CANCEL_REASON = _tag("cancel_reason")
_VERSION = _tag("version")
_RUN_EXPIRE_TIME = _tag("run_expire_time")

_STATUSES = {
    status: _tag("status") + varint(job_pb2.JobStatus.Value(f"JOB_STATUS_{status.value}"))
    for status in JobStatus
}

_KEY, _VALUE = b"\x0a", b"\x12"
"""The two fields of a map's entry."""


def job_bytes(job: Job) -> bytes:
    """Serialize the Job that everybody is told."""
    parts = [
        _text(_ID, job.id),
        _known_text(_USER_ID, job.user_id),
        _known_text(_JOB_TYPE, job.job_type),
        _STATUSES[job.status],
        _VERSION + varint(job.version),
        _MAX_ATTEMPTS + varint(job.max_attempts),
        _CREATE_TIME + _time(job.create_time),
        _UPDATE_TIME + _time(job.update_time),
    ]
    add = parts.append
    if job.progress:
        add(_PROGRESS + varint(job.progress))
    if job.progress_message:
        add(_text(_PROGRESS_MESSAGE, job.progress_message))
    if job.parameters is not None:
        add(_sized(_PARAMETERS, job.parameters))
    if job.labels:
        for key, value in job.labels.items():
            add(_label(key, value))
    if job.attempt:
        add(_ATTEMPT + varint(job.attempt))
    if job.worker_id:
        add(_known_text(_WORKER_ID, job.worker_id))
    for tag, instant in (
        (_START_TIME, job.start_time),
        (_LEASE_EXPIRE_TIME, job.lease_expire_time),
        (_QUEUE_EXPIRE_TIME, job.queue_expire_time),
        (_RUN_EXPIRE_TIME, job.run_expire_time),
        (_COMPLETE_TIME, job.complete_time),
        (_CANCEL_REQUEST_TIME, job.cancel_request_time),
    ):
        if instant is not None:
            add(tag + _time(instant))
    if job.result is not None:
        add(_sized(_RESULT, job.result))
    if job.error is not None:
        add(_sized(_ERROR, _error_bytes(job.error)))
    if job.cancel_reason:
        add(_text(_CANCEL_REASON, job.cancel_reason))
    return b"".join(parts)


def brief_job_bytes(job: Job) -> bytes:
    """Serialize what is told of a job to those who report on it."""
    parts = [
        _text(_ID, job.id),
        _STATUSES[job.status],
        _VERSION + varint(job.version),
        _UPDATE_TIME + _time(job.update_time),
    ]
    if job.progress:
        parts.append(_PROGRESS + varint(job.progress))
    if job.attempt:
        parts.append(_ATTEMPT + varint(job.attempt))
    if job.lease_expire_time is not None:
        parts.append(_LEASE_EXPIRE_TIME + _time(job.lease_expire_time))
    if job.cancel_request_time is not None:
        parts.append(_CANCEL_REQUEST_TIME + _time(job.cancel_request_time))
    if job.cancel_reason:
        parts.append(_text(_CANCEL_REASON, job.cancel_reason))
    return b"".join(parts)


def answer(kind: type[Answer], job: Job, rest: Answer | bytes = b"") -> Answer:
    """Return a message with this `job` and the rest of its fields; see `with_job`."""
    return with_job(kind, job_bytes(job), rest)


def with_job(kind: type[Answer], job: bytes, rest: Answer | bytes = b"") -> Answer:
    """Return the bytes of a message, typed as what they stand for.

    `rest` has its other fields, or their bytes. Whoever sends the bytes (handlers.py) passes
    on what is serialized already.
    """
    return cast("Answer", _sized(_field(kind, "job"), job) + _serialized(rest))


def with_jobs(kind: type[Answer], jobs: Iterable[bytes], rest: Answer | bytes = b"") -> Answer:
    """Return the same of a message with these `jobs`."""
    tag = _field(kind, "jobs")
    return cast("Answer", b"".join([_sized(tag, job) for job in jobs]) + _serialized(rest))


def _serialized(rest: Message | bytes) -> bytes:
    return rest if isinstance(rest, bytes) else rest.SerializeToString()


def first_field(message: bytes) -> bytes:
    """Return the field that a message of `with_job` begins with."""
    size, shift, at = 0, 0, 1
    while True:
        byte = message[at]
        size |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte <= 0x7F:  # noqa: PLR2004
            return message[: at + size]


def _field(kind: Any, name: str) -> bytes:
    tag = _FIELDS.get((kind, name))
    if tag is None:
        tag = _FIELDS[kind, name] = tag_of(kind.DESCRIPTOR, name)
    return tag


_FIELDS: dict[tuple[Any, str], bytes] = {}


def _text(tag: bytes, value: str) -> bytes:
    data = value.encode()
    return tag + varint(len(data)) + data


# A few owners, types, workers and labels are those of nearly all jobs.
@lru_cache(maxsize=4096)
def _known_text(tag: bytes, value: str) -> bytes:
    return _text(tag, value)


@lru_cache(maxsize=4096)
def _label(key: str, value: str) -> bytes:
    return _sized(_LABELS, _text(_KEY, key) + _text(_VALUE, value))


def _sized(tag: bytes, data: bytes) -> bytes:
    return tag + varint(len(data)) + data


def _error_bytes(error: JobError) -> bytes:
    data = job_pb2.JobError(reason=error.reason, message=error.message).SerializeToString()
    return data if error.details is None else data + _sized(_DETAILS, error.details)


_DETAILS = tag_of(job_pb2.JobError.DESCRIPTOR, "details")


# All that one commit changed has the same times.
@lru_cache(maxsize=1024)
def _time(instant: Instant) -> bytes:
    """Encode a Timestamp with its size in front."""
    seconds, micros = divmod(instant, 1_000_000)
    data = b"\x08" + varint(seconds & 0xFFFF_FFFF_FFFF_FFFF) if seconds else b""
    if micros:
        data += b"\x10" + varint(micros * 1000)
    return varint(len(data)) + data
