"""Lists: pages of an owner's jobs, and of a job's assets and attempts.

Lists take longer than all other reads, so they have connections of their own, and a list
whose caller has disconnected is interrupted.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Executable,
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
    Asset,
    AssetId,
    Attempt,
    Instant,
    Job,
    JobId,
    first_id,
    is_id,
)
from jobledger_server.domain.limits import MAX_ANSWER_BYTES, MAX_FULL_PAGE_BYTES, MAX_SCANNED_JOBS
from jobledger_server.sql.rows import asset_from_row, attempt_from_row, job_from_row
from jobledger_server.sql.store_connections import StoreConnections
from jobledger_server.sql.tables import (
    ID,
    KEPT,
    NOT_DELETED,
    RERUNS,
    STATE,
    assets,
    attempts,
    jobs,
)
from jobledger_server.store import JobPage, JobQuery
from jobledger_server.tuning import Tuning

JOB_BYTES = 1024
"""About the bytes that a job takes in an answer besides its longer texts and its payloads."""


class JobLists:
    """See `store.Store`."""

    def __init__(self, connections: StoreConnections, step: int = Tuning().list_step) -> None:
        self._connections = connections
        self._step = step  # jobs that are read at once

    async def list_jobs(
        self, query: JobQuery, *, before: JobId | None, limit: int, full: bool
    ) -> JobPage:
        async def read(connection: AsyncConnection) -> JobPage:
            return await _job_page(
                connection, query, before=before, limit=limit, full=full, most=self._step
            )

        return await self._connections.read_list(read)

    async def list_attempts(self, job_id: JobId, *, after: int, limit: int) -> list[Attempt]:
        # A token can be made up, with a number that the column cannot have.
        statement = _of_job(attempts, job_id).where(attempts.c.number > literal(after, BigInteger))
        rows = await self._rows(statement.order_by(attempts.c.number).limit(limit))
        return [attempt_from_row(row) for row in rows]

    async def list_assets(self, job_id: JobId, *, after: AssetId | None, limit: int) -> list[Asset]:
        statement = _of_job(assets, job_id).where(assets.c.name != "")
        if after is not None:
            statement = statement.where(assets.c.id > after)
        rows = await self._rows(statement.order_by(assets.c.id).limit(limit))
        return [asset_from_row(row) for row in rows]

    async def _rows(self, statement: Executable) -> Sequence[Any]:
        async def read(connection: AsyncConnection) -> Sequence[Any]:
            return (await connection.execute(statement)).all()

        return await self._connections.read_list(read)


def _of_job(table: Table, job_id: JobId) -> Select[Any]:
    """Return the statement for the rows of a job that was not deleted."""
    kept = exists().where(jobs.c.id == job_id, NOT_DELETED)
    return select(table).where(table.c.job_id == job_id, kept)


async def _job_page(
    connection: AsyncConnection,
    query: JobQuery,
    *,
    before: JobId | None,
    limit: int,
    full: bool,
    most: int,
) -> JobPage:
    """Read a page of jobs: first how far to scan, then the jobs in steps of `most`."""
    first, end = _range(query, before)
    filters = _filters(query)
    newest_first = _newest_first(query)
    rest = None
    # The only rerun of a job is found by an index.
    if filters and query.origin_job_id is None:
        last = select(jobs.c.id).where(*_span(query, first, end)).order_by(*newest_first)
        rest = await connection.scalar(last.limit(1).offset(MAX_SCANNED_JOBS - 1))
    listed: list[Job] = []
    room = MAX_FULL_PAGE_BYTES if full else MAX_ANSWER_BYTES
    while True:
        step = select(*STATE).where(*_span(query, rest or first, end), *filters)
        # One more than needed shows whether any follow.
        count = min(most, limit + 1 - len(listed))
        rows = (await connection.execute(step.order_by(*newest_first).limit(count))).all()
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
    if query.user_id is None:
        if end is not None:
            span.append(jobs.c.id < end)
        if first is not None:
            span.append(jobs.c.id >= first)
        return span
    # As in feed_statements.py: with an equation of the owner PostgreSQL might read everybody's jobs
    # in the order of their ids.
    owner, own = jobs.c.user_id, tuple_(jobs.c.user_id, jobs.c.id)
    user_id = literal(query.user_id)
    span.append(owner <= user_id if end is None else own < tuple_(user_id, literal(end, ID)))
    span.append(owner >= user_id if first is None else own >= tuple_(user_id, literal(first, ID)))
    return [*span, literal_column(KEPT)]


def _newest_first(query: JobQuery) -> list[ColumnElement[Any]]:
    return (
        [jobs.c.id.desc()] if query.user_id is None else [jobs.c.user_id.desc(), jobs.c.id.desc()]
    )


def _filters(query: JobQuery) -> list[ColumnElement[bool]]:
    """Return the other conditions on the jobs that are listed."""
    # The index on all owners' jobs has deleted ones too.
    filters: list[ColumnElement[bool]] = [NOT_DELETED] if query.user_id is None else []
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
