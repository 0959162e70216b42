"""What several calls check, or convert, of their arguments.

The service alone knows the rules of fields, and a message refuses a wrong type. Refused here is
what Python would accept but the caller cannot have meant, such as a `str` in place of a list.
"""

import uuid
from collections.abc import Iterable, Sequence
from typing import Final

from jobledger.core.models import Job, JobError, JobStatus
from jobledger.core.open_group import OpenGroup
from jobledger.v1 import job_pb2

MAX_IDS: Final = 1000
"""Jobs that one request can name."""


def fresh_id() -> str:
    """Return a request id: without one, a retry could do its work twice."""
    return str(uuid.uuid4())


def job_error(error: str | JobError | None, reason: str | None) -> job_pb2.JobError | None:
    """Return the message of an error. Raises ValueError if a reason goes with no text."""
    if isinstance(error, str):
        return JobError(error, reason=reason or "").to_proto()
    if reason is not None:
        raise ValueError("reason: goes with an error message, not with a JobError or none")
    return None if error is None else error.to_proto()


def status_numbers(statuses: JobStatus | Iterable[JobStatus]) -> list[job_pb2.JobStatus.ValueType]:
    """Return the numbers of one status, or of several."""
    if isinstance(statuses, str):
        statuses = (JobStatus(statuses),)
    return [JobStatus(status).to_proto() for status in statuses]


def groups(ids: Sequence[str]) -> list[Sequence[str]]:
    """Split ids into as few groups as one request each can name."""
    return [ids[start : start + MAX_IDS] for start in range(0, len(ids), MAX_IDS)]


def texts(values: Iterable[str], name: str) -> list[str]:
    """Return the values as a list. Raises TypeError if they are one `str`."""
    if isinstance(values, str):
        raise TypeError(f"{name}: {values!r} is not a list; give [{values!r}]")
    return list(values)


def id_of(job: str | Job | OpenGroup, name: str = "job_id") -> str:
    """Return the id of a job, or the id itself. Raises TypeError, naming the argument."""
    if isinstance(job, Job | OpenGroup):
        return job.id
    if not isinstance(job, str):
        raise TypeError(f"{name}: {type(job).__name__} is neither a Job nor its id")
    return job


def ids_of(jobs: Iterable[str | Job], name: str = "job_ids") -> list[str]:
    """Return the ids of jobs. Raises TypeError, naming the argument, also for one alone."""
    if isinstance(jobs, str | Job) or not isinstance(jobs, Iterable):
        raise TypeError(f"{name}: {jobs!r:.100} is not a list; give [{jobs!r:.100}]")
    return [id_of(job, f"{name}[{index}]") for index, job in enumerate(jobs)]


def text(value: str, name: str) -> str:
    """Return the value. Raises TypeError, naming the argument, unless it is a `str`."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: {type(value).__name__} is not a str")
    return value


def count(value: int, name: str, *, least: int = 1) -> int:
    """Return the value. Raises TypeError or ValueError unless it is an `int` of at least this."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: {type(value).__name__} is not an int")
    if value < least:
        raise ValueError(f"{name}: {value} is less than {least}")
    return value
