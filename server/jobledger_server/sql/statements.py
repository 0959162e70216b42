"""Every fixed statement of the store, compiled once."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Select,
    Table,
    Text,
    TextClause,
    bindparam,
    cast,
    delete,
    func,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy.engine.interfaces import Dialect as SqlDialect
from sqlalchemy.sql import ClauseElement

from jobledger_server.domain.job import JobId
from jobledger_server.sql.dialect import ANSWER_OVERHEAD_BYTES, Dialect
from jobledger_server.sql.driver import Prepared
from jobledger_server.sql.rows import (
    ASSET_COLUMNS,
    TOMBSTONE_COLUMNS,
    TRANSITION_COLUMNS,
    job_rows,
    mutable_rows,
    report_rows,
)
from jobledger_server.sql.tables import ACTIVE, assets, feed, job_transitions, jobs, tombstones
from jobledger_server.store import Owned

# In the text and not bound: otherwise the planner cannot use a partial index.
_NONE = text("''")


def bind_owned(
    dialect: Dialect, ids: Collection[JobId], owned: Collection[Owned]
) -> dict[str, Any]:
    """Return the parameters of the statements that read or lock jobs, `owned` for their owners."""
    return {
        **dialect.bind_list("ids", {*ids, *(job_id for job_id, _ in owned)}),
        **dialect.bind_list("any_owner", ids),
        **dialect.bind_list("owned", [f"{job_id}/{user_id}" for job_id, user_id in owned]),
    }


class Statements:
    """The statements for a dialect. Their lists are bound, so their text never changes.

    Those that a batch runs are prepared for the driver.

    Args:
        dialect: The database's dialect.
        sqlalchemy_dialect: SQLAlchemy's own.
    """

    def __init__(self, dialect: Dialect, sqlalchemy_dialect: SqlDialect) -> None:
        def prepared(statement: ClauseElement) -> Prepared:
            return Prepared(statement, sqlalchemy_dialect)

        self.dialect = dialect
        jobs_by_id = select(jobs).where(dialect.one_of(jobs.c.id, "ids"))
        # The owner is part of the condition, so that another owner's job is not read.
        id_and_owner = jobs.c.id.concat("/").concat(jobs.c.user_id)
        readable = or_(
            dialect.one_of(jobs.c.id, "any_owner"), dialect.one_of(id_and_owner, "owned")
        )
        self.read_jobs = prepared(jobs_by_id.where(readable))
        self.read_more_jobs = jobs_by_id
        # One statement, so that both tables are read in the same snapshot.
        self.read_histories = prepared(
            select(jobs, job_transitions)
            .outerjoin(job_transitions, job_transitions.c.job_id == jobs.c.id)
            .where(dialect.one_of(jobs.c.id, "ids"), readable)
            .order_by(jobs.c.id, job_transitions.c.version)
        )
        # In the order of the ids, so that transactions do not deadlock.
        self.lock_jobs = prepared(dialect.locked(jobs_by_id.order_by(jobs.c.id)))
        self.lock_owned_jobs = prepared(
            dialect.locked(jobs_by_id.where(readable).order_by(jobs.c.id))
        )
        self.lock_unlocked_jobs = prepared(dialect.locked(jobs_by_id, skip=True))
        self.find_created = prepared(
            dialect.with_pairs(
                select(jobs).where(jobs.c.request_id != _NONE),
                jobs.c.user_id,
                jobs.c.request_id,
                "requests",
            )
        )
        self.find_linked = prepared(
            dialect.with_pairs(
                select(assets).where(assets.c.request_id != _NONE),
                assets.c.job_id,
                assets.c.request_id,
                "requests",
            )
        )
        self.delete_jobs = prepared(delete(jobs).where(dialect.one_of(jobs.c.id, "ids")))
        self.insert_jobs = dialect.insertion(jobs, job_rows.columns)
        self.update_jobs = dialect.change(jobs, jobs.c.id, mutable_rows.columns)
        self.report_jobs = dialect.change(jobs, jobs.c.id, report_rows.columns)
        self.insert_transitions = dialect.insertion(job_transitions, TRANSITION_COLUMNS)
        self.insert_assets = dialect.insertion(assets, ASSET_COLUMNS)
        self.insert_tombstones = dialect.insertion(tombstones, TOMBSTONE_COLUMNS)
        overdue = (
            select(jobs.c.id, jobs.c.deadline)
            .where(jobs.c.deadline <= dialect.clock)
            .order_by(jobs.c.deadline)
            .limit(bindparam("count"))
            .subquery()
        )
        # At least one row: the time is needed even if no job is overdue.
        clock = select(dialect.clock.label("now")).subquery()
        self.overdue = (
            select(clock.c.now, overdue.c.id)
            .select_from(clock.outerjoin(overdue, true()))
            .order_by(overdue.c.deadline)
        )
        self.find_purgeable = (
            select(jobs.c.id)
            # No job ends before it is created, and its id contains that time. So this needs no
            # index on the completion time, and skips few jobs.
            .where(jobs.c.id < bindparam("before_id"), jobs.c.complete_time < bindparam("before"))
            .order_by(jobs.c.id)
            .limit(bindparam("count"))
        )
        self.feed_head = select(feed.c.epoch, feed.c.seq, feed.c.compacted_seq)
        self.feed = FeedStatements()
        self.owned_feed = FeedStatements(owned=True)
        self.few_feed = FeedStatements(owned=True, few=True)
        of_owner = select(jobs.c.id).where(jobs.c.user_id == bindparam("user_id"))
        self.count_jobs_of_owner = select(func.count()).select_from(
            of_owner.limit(bindparam("count")).subquery()
        )
        self.newest_from = _newest_from()
        self.job_sizes = select(jobs.c.id, _SIZE).where(dialect.one_of(jobs.c.id, "ids"))
        # First the oldest, then which of them are old enough: otherwise, if none is, the statement
        # reads all of them.
        oldest = (
            select(tombstones.c.change_seq, tombstones.c.delete_time)
            .order_by(tombstones.c.change_seq)
            .limit(bindparam("count"))
            .subquery()
        )
        self.last_old_deletion = select(func.max(oldest.c.change_seq)).where(
            oldest.c.delete_time < bindparam("before")
        )
        self.compact_deletions = delete(tombstones).where(
            tombstones.c.change_seq <= bindparam("last")
        )
        self.set_compacted_seq = (
            update(feed)
            .where(feed.c.compacted_seq < bindparam("last"))
            .values(compacted_seq=bindparam("last"))
        )
        self.renew_epoch = (
            update(feed).where(feed.c.epoch == bindparam("old")).values(epoch=bindparam("new"))
        )
        self.verify_identity = (
            update(feed)
            .where(feed.c.database_identity != dialect.database_identity)
            .values(database_identity=dialect.database_identity, epoch=bindparam("new"))
        )


# The part of a job's size that the database computes without reading the payloads.
_SIZE: ColumnElement[int] = (
    func.coalesce(func.length(jobs.c.parameters), 0)
    + func.coalesce(func.length(jobs.c.result), 0)
    + func.coalesce(func.length(jobs.c.error_details), 0)
)


ANSWER_SIZE = _SIZE + func.length(cast(jobs.c.labels, Text)) + ANSWER_OVERHEAD_BYTES
"""About how many bytes a job takes in an answer."""


class FeedStatements:
    """The statements that read a page of the feed. Its limits are bound.

    Args:
        owned: Read the changes of one owner instead of all.
        few: The owner has few jobs: find them by the index on the owner, then sort them. With
            many jobs that would read all of them, so they are found by sequence number.
    """

    def __init__(self, *, owned: bool = False, few: bool = False) -> None:
        # An expression instead of a column keeps the planner from using the column's index.
        def whose(column: Column[str]) -> tuple[ColumnElement[bool], ...]:
            owner = column if few else column.concat("")
            return (owner == bindparam("user_id"),) if owned else ()

        def at(table: Table) -> ColumnElement[int]:
            return table.c.change_seq + 0 if few else table.c.change_seq

        self.jobs = _jobs_page(at(jobs), *whose(jobs.c.user_id))
        self.deletions = _span(tombstones, tombstones.c.change_seq, *whose(tombstones.c.user_id))
        self.transitions = _span(job_transitions, at(job_transitions), *whose(jobs.c.user_id))
        if owned:
            with_jobs = jobs.c.id == job_transitions.c.job_id
            self.transitions = self.transitions.join(jobs, with_jobs)
        mine = (jobs.c.user_id == bindparam("user_id"),) if owned else ()
        self.active = _jobs_page(jobs.c.change_seq, text(ACTIVE), *mine)


def _span(table: Table, at: ColumnElement[int], *which: ColumnElement[bool]) -> Select[Any]:
    """Return the statement for the first rows after `seq` up to `until`, at most `count`."""
    span = select(table).where(*which, at > bindparam("seq"), at <= bindparam("until"))
    return span.order_by(at).limit(bindparam("count"))


def _jobs_page(at: ColumnElement[int], *which: ColumnElement[bool] | TextClause) -> Select[Any]:
    """Return the same for jobs, up to the job whose contents reach `max_bytes` in sum."""
    after = at > bindparam("seq")
    sizes = select(at.label("at"), _SIZE.label("size"))
    sizes = sizes.where(*which, after, at <= bindparam("until"))
    first = sizes.order_by(at).limit(bindparam("count")).subquery()
    before = func.sum(first.c.size).over(order_by=first.c.at) - first.c.size
    sums = select(first.c.at, before.label("bytes_before")).subquery()
    last = select(func.max(sums.c.at)).where(sums.c.bytes_before < bindparam("max_bytes"))
    return select(jobs).where(*which, after, at <= last.scalar_subquery()).order_by(at)


def _newest_from() -> Select[Any]:
    """Return the statement for the newest change that exceeds `max_bytes` with those after it."""
    seq = jobs.c.change_seq
    newest = select(seq, _SIZE.label("size")).where(seq > bindparam("seq"))
    newest = newest.order_by(seq.desc()).limit(bindparam("count"))
    first = newest.subquery()
    total = func.sum(first.c.size).over(order_by=first.c.change_seq.desc())
    sums = select(first.c.change_seq, total.label("total")).subquery()
    return select(func.max(sums.c.change_seq)).where(sums.c.total > bindparam("max_bytes"))
