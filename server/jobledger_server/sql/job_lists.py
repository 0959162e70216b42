"""Lists: pages of an owner's jobs, and of a job's assets and attempts.

Lists take longer than all other reads, so they have connections of their own, and a list
whose caller has disconnected is interrupted.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Select,
    Table,
    exists,
    false,
    literal,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from jobledger_server.domain.job import (
    CANCELLED,
    ID_AHEAD,
    AssetId,
    Instant,
    Job,
    JobId,
    first_id,
    is_id,
)
from jobledger_server.domain.limits import MAX_ANSWER_BYTES, MAX_FULL_PAGE_BYTES, MAX_SCANNED_JOBS
from jobledger_server.sql.rows import job_from_row
from jobledger_server.sql.tables import (
    ID,
    KEPT,
    NOT_DELETED,
    REQUESTED,
    RERUNS,
    STATE,
    WITH_UNIQUE_KEY,
    assets,
    attempts,
    jobs,
)
from jobledger_server.store import JobPage, JobQuery

_NO_ID = "00000000-0000-0000-0000-000000000000"

JOB_BYTES = 1024
"""About the bytes that a job takes in an answer besides its longer texts and its payloads."""


def attempts_of(job_id: JobId, *, after: int, limit: int) -> Select[Any]:
    """Return the statement for a page of a job's attempts; see `store.Store.list_attempts`."""
    # A token can be made up, with a number that the column cannot have.
    page = _of_job(attempts, job_id).where(attempts.c.number > literal(after, BigInteger))
    return page.order_by(attempts.c.number).limit(limit)


def assets_of(job_id: JobId, *, after: AssetId | None, limit: int) -> Select[Any]:
    """Return the statement for a page of a job's assets; see `store.Store.list_assets`."""
    page = _of_job(assets, job_id).where(assets.c.name != "")
    if after is not None:
        page = page.where(assets.c.id > after)
    return page.order_by(assets.c.id).limit(limit)


def _of_job(table: Table, job_id: JobId) -> Select[Any]:
    """Return the statement for the rows of a job that was not deleted."""
    kept = exists().where(jobs.c.id == job_id, NOT_DELETED)
    return select(table).where(table.c.job_id == job_id, kept)


async def job_page(
    connection: AsyncConnection,
    query: JobQuery,
    *,
    before: JobId | None,
    limit: int,
    full: bool,
    step: int,
) -> JobPage:
    """Read a page of jobs: first how far to scan, then so many jobs at once."""
    first, end = _range(query, before)
    filters = _filters(query)
    newest_first = _newest_first(query)
    rest = None
    # The only rerun of a job is found by an index, and so is the job that a request created.
    if filters and query.origin_job_id is None and not _is_of_request(query):
        last = select(jobs.c.id).where(*_span(query, first, end)).order_by(*newest_first)
        rest = await connection.scalar(last.limit(1).offset(MAX_SCANNED_JOBS - 1))
    listed: list[Job] = []
    room = MAX_FULL_PAGE_BYTES if full else MAX_ANSWER_BYTES
    while True:
        following = select(*STATE).where(*_span(query, rest or first, end), *filters)
        # One more than needed shows whether any follow.
        count = min(step, limit + 1 - len(listed))
        rows = (await connection.execute(following.order_by(*newest_first).limit(count))).all()
        for row in rows:
            job = job_from_row(row)
            room -= JOB_BYTES + job.content_bytes + (job.payload_bytes if full else 0)
            if len(listed) == limit or (listed and room < 0):
                return JobPage(listed, listed[-1].id)
            listed.append(job)
        if len(rows) < count:
            return JobPage(listed, rest)
        end = listed[-1].id


def _range(query: JobQuery, before: JobId | None) -> tuple[JobId | None, JobId | None]:
    """Return the first id of the jobs that are scanned, and the one that they end before."""
    first = None if query.created_after is None else first_id(query.created_after)
    if query.created_before is None:
        return first, before
    end = first_id(Instant(query.created_before + ID_AHEAD))
    return first, end if before is None else min(before, end)


def _span(query: JobQuery, first: JobId | None, end: JobId | None) -> list[ColumnElement[bool]]:
    """Return the conditions on which jobs are scanned, by an index.

    Each bound stands once: of two SQLite would scan by one of them, and filter by the other.
    """
    span: list[ColumnElement[bool]] = []
    by = _found_by(query)
    if not by:
        if end is not None:
            span.append(jobs.c.id < end)
        if first is not None:
            span.append(jobs.c.id >= first)
        return span
    # As in feed_statements.py: with an equation of the owner PostgreSQL might read everybody's jobs
    # in the order of their ids.
    columns, values = by.keys(), [literal(value, column.type) for column, value in by.items()]
    all_, wanted = tuple_(*columns), tuple_(*values)
    own = tuple_(*columns, jobs.c.id)
    span.append(all_ <= wanted if end is None else own < tuple_(*values, literal(end, ID)))
    span.append(all_ >= wanted if first is None else own >= tuple_(*values, literal(first, ID)))
    if jobs.c.unique_key in by:
        span.append(literal_column(WITH_UNIQUE_KEY))
    return [*span, literal_column(KEPT)]


def _found_by(query: JobQuery) -> dict[Column[Any], str]:
    """Return the columns, with their values, by which an index finds the jobs, newest first."""
    if query.group_id is not None and not _is_of_request(query):
        return {jobs.c.group_id: _group_id(query)}
    if query.user_id is None or _is_of_request(query):
        return {}
    owner = {jobs.c.user_id: query.user_id}
    return {**owner, jobs.c.unique_key: query.unique_key} if query.unique_key else owner


def _group_id(query: JobQuery) -> str:
    # A text that cannot be an id names no job, and PostgreSQL would not take it.
    group_id = query.group_id or ""
    return group_id if not group_id or is_id(group_id) else _NO_ID


def _is_of_request(query: JobQuery) -> bool:
    """Return whether the query is for the one job that a request of an owner created."""
    return bool(query.request_id) and query.user_id is not None


def _newest_first(query: JobQuery) -> list[ColumnElement[Any]]:
    return [column.desc() for column in (*_found_by(query), jobs.c.id)]


def _name_filters(query: JobQuery) -> list[ColumnElement[bool]]:
    """Return the conditions on what names the jobs, but for those that `_span` has."""
    by = _found_by(query)
    named = {
        jobs.c.user_id: None if jobs.c.user_id in by else query.user_id,
        jobs.c.request_id: query.request_id,
        jobs.c.unique_key: "" if jobs.c.unique_key in by else query.unique_key,
        jobs.c.concurrency_key: query.concurrency_key,
        jobs.c.worker_id: query.worker_id,
        jobs.c.group_id: _group_id(query) if _is_of_request(query) else None,
    }
    filters: list[ColumnElement[bool]] = [
        column == value for column, value in named.items() if value
    ]
    # In the text: otherwise the planner cannot use the index.
    return [*filters, literal_column(REQUESTED)] if query.request_id else filters


def _filters(query: JobQuery) -> list[ColumnElement[bool]]:
    """Return the other conditions on the jobs that are listed."""
    # The index on all owners' jobs has deleted ones too.
    filters: list[ColumnElement[bool]] = [] if _found_by(query) else [NOT_DELETED]
    filters += _name_filters(query)
    if query.phases:
        filters.append(jobs.c.phase.in_(sorted(query.phases)))
    if query.statuses:
        filters.append(jobs.c.status.in_(sorted(s.value for s in query.statuses)))
    if query.job_types:
        filters.append(jobs.c.job_type.in_(sorted(query.job_types)))
    if query.created_after is not None:
        filters.append(jobs.c.create_time > query.created_after)
    if query.created_before is not None:
        filters.append(jobs.c.create_time < query.created_before)
    if query.error_reasons:
        filters.append(jobs.c.error_reason.in_(sorted(query.error_reasons)))
    if query.origin_job_id is not None:
        # A text that cannot be an id names no job, and PostgreSQL would not take it.
        known = is_id(query.origin_job_id)
        filters.append(jobs.c.origin_job_id == query.origin_job_id if known else false())
        filters.append(literal_column(RERUNS))
    if query.held is not None:
        held = jobs.c.lease_expire_time.is_not(None)
        filters.append(held if query.held else ~held)
    if query.cancelled is not None:
        reason = jobs.c.error_reason
        filters.append(
            reason == CANCELLED if query.cancelled else reason.is_distinct_from(CANCELLED)
        )
    if query.not_rerun:
        other = jobs.alias()
        reruns = exists().where(other.c.origin_job_id == jobs.c.id, other.c.delete_seq.is_(None))
        filters.append(~reruns)
    if query.uncancelled:
        filters.append(jobs.c.cancel_request_time.is_(None))
    filters += [jobs.c.labels[key].as_string() == value for key, value in query.labels.items()]
    return filters
