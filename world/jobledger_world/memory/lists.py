"""Jobs by their ids, and lists of jobs, assets and attempts."""

from collections.abc import Collection, Sequence
from itertools import islice

from jobledger_server.domain.job import (
    ID_AHEAD,
    Asset,
    AssetId,
    Attempt,
    Instant,
    Job,
    JobId,
    first_id,
)
from jobledger_server.domain.limits import MAX_ANSWER_BYTES, MAX_FULL_PAGE_BYTES, MAX_SCANNED_JOBS
from jobledger_server.store import JobPage, JobQuery, StoredJob
from jobledger_world.memory.rows import KEPT, children_of, of_owner, rerun_of
from jobledger_world.memory.tables import Tables

JOB_BYTES = 1024
"""About the bytes that a job takes in an answer besides its longer texts and its payloads."""


def stored(tables: Tables, ids: Collection[JobId], *, full: bool) -> dict[JobId, StoredJob]:
    """See `store.Store.read_jobs`."""
    rows = {job_id: tables.kept(job_id) for job_id in sorted(set(ids))}
    return {job_id: row.stored(full=full) for job_id, row in rows.items() if row is not None}


def attempts(tables: Tables, job_id: JobId, *, after: int, limit: int) -> list[Attempt]:
    """See `store.Store.list_attempts`."""
    row = tables.kept(job_id)
    found = [] if row is None else [each for each in row.attempts.values() if each.number > after]
    return sorted(found, key=lambda each: each.number)[:limit]


def assets(tables: Tables, job_id: JobId, *, after: AssetId | None, limit: int) -> list[Asset]:
    """See `store.Store.list_assets`."""
    row = tables.kept(job_id)
    found = () if row is None else row.assets.values()
    named = (each for each in found if each.link.name and each.id > (after or ""))
    return sorted(named, key=lambda each: each.id)[:limit]


def all_assets(tables: Tables, ids: Collection[JobId]) -> dict[JobId, Sequence[Asset]]:
    """See `store.Store.read_assets`."""
    rows = {job_id: tables.rows[job_id] for job_id in ids if job_id in tables.rows}
    return {
        job_id: sorted(row.assets.values(), key=lambda each: each.id)
        for job_id, row in rows.items()
        if row.assets
    }


def page(
    tables: Tables, query: JobQuery, *, before: JobId | None, limit: int, full: bool
) -> JobPage:
    """See `store.Store.list_jobs`."""
    group = KEPT if query.user_id is None else of_owner(query.user_id)
    if query.group_id is not None and not (query.request_id and query.user_id is not None):
        group = children_of(query.group_id)
    first = JobId("") if query.created_after is None else first_id(query.created_after)
    end = before
    if query.created_before is not None:
        last = first_id(Instant(query.created_before + ID_AHEAD))
        end = last if before is None else min(before, last)
    ids = sorted(
        each
        for each in tables.members(group)
        if each >= first and _is_found_by(query, tables.rows[each].job)
    )
    scanned = [each for each in reversed(ids) if end is None or each < end]
    rest = None
    if _is_scanned(query) and len(scanned) >= MAX_SCANNED_JOBS:
        scanned = scanned[:MAX_SCANNED_JOBS]
        rest = scanned[-1]
    jobs = (tables.rows[job_id].job for job_id in scanned)
    passing = (job for job in jobs if _passes(tables, query, job))
    listed: list[Job] = []
    room = MAX_FULL_PAGE_BYTES if full else MAX_ANSWER_BYTES
    for job in islice(passing, limit + 1):
        room -= JOB_BYTES + job.content_bytes + (job.payload_bytes if full else 0)
        if len(listed) == limit or (listed and room < 0):
            return JobPage(listed, listed[-1].id)
        listed.append(job)
    return JobPage(listed, rest)


def _is_found_by(query: JobQuery, job: Job) -> bool:
    """Return whether an index finds the job, by the key of the query if that has one."""
    if query.user_id is None:
        return True
    if query.request_id:
        return job.request_id == query.request_id
    if query.group_id is not None:
        return True
    return query.unique_key in ("", job.unique_key)


def _is_scanned(query: JobQuery) -> bool:
    """Return whether jobs are left out that have the owner, and not found by an index."""
    return query.origin_job_id is None and query.key()[1:] != JobQuery(user_id=None).key()[1:]


def _passes(tables: Tables, query: JobQuery, job: Job) -> bool:
    reason = "" if job.error is None else job.error.reason
    return (
        (not query.statuses or job.status in query.statuses)
        and (not query.job_types or job.job_type in query.job_types)
        and (query.created_after is None or job.create_time > query.created_after)
        and (query.created_before is None or job.create_time < query.created_before)
        and (not query.error_reasons or reason in query.error_reasons)
        and query.origin_job_id in (None, job.origin_job_id)
        and query.held in (None, job.leased)
        and query.cancelled in (None, job.cancelled)
        and query.unique_key in ("", job.unique_key)
        and query.request_id in ("", job.request_id)
        and query.concurrency_key in ("", job.concurrency_key)
        and (not query.phases or job.phase in query.phases)
        and query.worker_id in ("", job.worker_id)
        and query.group_id in (None, job.group_id)
        and query.user_id in (None, job.user_id)
        and not (query.not_rerun and tables.members(rerun_of(job.id)))
        and not (query.uncancelled and job.cancel_request_time is not None)
        and query.labels.items() <= job.labels.items()
    )
