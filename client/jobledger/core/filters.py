"""Which jobs: the filters of list_jobs() and of the calls that change many jobs."""

from collections.abc import Iterable, Mapping, Sized
from datetime import datetime
from typing import Any, TypedDict

from jobledger.core.conversion import build, to_timestamp
from jobledger.core.models import Job, JobPhase, JobStatus
from jobledger.core.options import check_names
from jobledger.core.requests import id_of, status_numbers, texts
from jobledger.v1.job_service_pb2 import JobFilter


class JobFilters(TypedDict, total=False):
    """Keyword arguments that select jobs: those that pass all filters given."""

    statuses: JobStatus | Iterable[JobStatus]
    """Only jobs with this one, or one of these. Default: all that the call is for."""
    job_types: Iterable[str]
    """Only jobs of one of these types, at most 100. Default: all."""
    labels: Mapping[str, str] | None
    """Only jobs with all of these labels, at most 32. Default: all."""
    created_after: datetime | None
    """Only jobs created later; with a time zone. Default: all."""
    created_before: datetime | None
    """Only jobs created earlier; with a time zone. Default: all."""
    error_reasons: Iterable[str]
    """Only jobs whose error has one of these reasons, at most 100. Default: all."""
    origin_job_id: str | Job
    """Only the rerun of this job, or of the one with this id; see rerun_job(). Default: all."""
    held: bool | None
    """Only jobs that a worker holds (True), or only others (False). Default: both."""
    cancelled: bool | None
    """Only jobs that were cancelled (True), or only others (False). Default: both; of
    rerun_jobs(): only others, unless `error_reasons` has CANCELLED."""
    unique_key: str
    """Only the owner's jobs with this unique key, those that have ended too. Default: all."""
    request_id: str
    """Only the owner's job that was created with this request id. Default: all."""
    concurrency_key: str
    """Only jobs with this concurrency key. Default: all."""
    phases: JobPhase | Iterable[JobPhase]
    """Only jobs in this phase, or in one of these: no terminal ones. Default: all."""
    worker_id: str
    """Only jobs that this worker holds, or held last. Default: all."""
    group_id: str | Job
    """Only the jobs of this group, or of the one with this id. Default: all."""


def filter_fields(filters: JobFilters) -> dict[str, Any]:
    """Return filters as the fields of a message.

    Raises:
        TypeError: there is no such filter, or a `str` is given in place of a list.
        ValueError: a status or a phase does not exist, or a time has no time zone.
    """
    check_names(filters, JobFilters)
    phases = filters.get("phases", ())
    if isinstance(phases, str):
        phases = (JobPhase(phases),)
    return {
        **filters,
        "statuses": status_numbers(filters.get("statuses", ())),
        "phases": [JobPhase(phase).to_proto() for phase in phases],
        "job_types": texts(filters.get("job_types", ()), "job_types"),
        "created_after": to_timestamp(filters.get("created_after"), "created_after"),
        "created_before": to_timestamp(filters.get("created_before"), "created_before"),
        "origin_job_id": id_of(filters.get("origin_job_id", ""), "origin_job_id"),
        "group_id": id_of(filters.get("group_id", ""), "group_id"),
        "error_reasons": texts(filters.get("error_reasons", ()), "error_reasons"),
    }


def job_filter(filters: JobFilters) -> JobFilter:
    """Return the filter of a call that changes what it matches.

    Raises:
        TypeError: as `filter_fields`.
        ValueError: as `filter_fields`, or a filter is empty: in the message this would mean all
            jobs, which a program that has computed it cannot have meant.
    """
    fields = filter_fields(filters)
    for name in filters:
        if isinstance(fields[name], Sized) and not len(fields[name]):
            raise ValueError(f"{name}: is empty; leave it out for all jobs")
    return build(JobFilter, **fields)
