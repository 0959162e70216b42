"""The statements that read the feed, and the list of active jobs."""

from sqlalchemy import (
    ColumnElement,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    select,
    text,
    tuple_,
)

from jobledger_server.sql.dialect import ANSWER_OVERHEAD_BYTES, Dialect
from jobledger_server.sql.tables import (
    ACTIVE,
    ID,
    changes,
    feed,
    jobs,
    tombstones,
)

SIZE: ColumnElement[int] = (
    func.coalesce(func.length(jobs.c.parameters), 0)
    + func.coalesce(func.length(jobs.c.result), 0)
    + func.coalesce(func.length(jobs.c.error_details), 0)
)
"""The part of a job's size that the database computes without reading the payloads."""

ANSWER_SIZE = SIZE + func.length(cast(jobs.c.labels, Text)) + ANSWER_OVERHEAD_BYTES
"""About how many bytes a job takes in an answer."""


class FeedStatements:
    """The statements for a dialect. Their bounds are bound."""

    def __init__(self, dialect: Dialect) -> None:
        newest = func.coalesce(select(func.max(changes.c.seq)).scalar_subquery(), 0)
        compacted = feed.c.compacted_seq
        head = case((newest > compacted, newest), else_=compacted)
        self.head = select(feed.c.epoch, head.label("seq"), compacted)
        sizes = select(changes.c.seq, changes.c.job_id, SIZE.label("size"))
        sizes = sizes.outerjoin(jobs, jobs.c.id == changes.c.job_id).limit(bindparam("count"))
        after = changes.c.seq > bindparam("seq")
        self.changes = sizes.where(after).order_by(changes.c.seq)
        self.changes_until = self.changes.where(changes.c.seq <= bindparam("until"))
        self.newest_changes = sizes.where(after).order_by(changes.c.seq.desc())
        # Only one index has this order. With an equation of the owner PostgreSQL might read
        # everybody's changes in the order of `seq`.
        owner_and_seq = tuple_(changes.c.user_id, changes.c.seq)
        self.owned_changes = sizes.where(
            owner_and_seq > tuple_(bindparam("user_id"), bindparam("seq")),
            changes.c.user_id <= bindparam("user_id"),
        ).order_by(changes.c.user_id, changes.c.seq)
        # The row of a start, of an unfinished job or of a deletion has the time NULL.
        latest = and_(jobs.c.id == changes.c.job_id, jobs.c.change_seq == changes.c.seq)
        ends = select(changes.c.seq, changes.c.job_id, jobs.c.complete_time)
        self.ends = (
            ends.outerjoin(jobs, latest)
            .where(after)
            .order_by(changes.c.seq)
            .limit(bindparam("count"))
        )
        active = select(jobs.c.user_id, jobs.c.id, jobs.c.change_seq, SIZE.label("size"))
        active = active.where(text(ACTIVE)).order_by(jobs.c.user_id, jobs.c.id)
        active = active.limit(bindparam("count"))
        owner_and_id = tuple_(jobs.c.user_id, jobs.c.id)
        self.active_jobs = active.where(
            owner_and_id > tuple_(bindparam("after_user_id"), bindparam("after_id", type_=ID))
        )
        self.owned_active_jobs = active.where(
            owner_and_id > tuple_(bindparam("user_id"), bindparam("after_id", type_=ID)),
            jobs.c.user_id <= bindparam("user_id"),
        )
        deleted = and_(
            tombstones.c.change_seq > bindparam("seq"),
            tombstones.c.change_seq <= bindparam("until"),
        )
        self.deletions = select(tombstones).where(deleted)
        self.deleted_jobs = select(tombstones.c.job_id).where(deleted)
        self.jobs = select(jobs).where(dialect.one_of(jobs.c.id, "ids"))
