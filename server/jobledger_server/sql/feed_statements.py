"""The statements that read the feed, and the list of active jobs."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, case, func, select, text, tuple_, union

from jobledger_server.sql.tables import ACTIVE, HELD_OF, ID, NOT_DELETED, STATE, changes, feed, jobs


def feed_head() -> Sequence[ColumnElement[Any]]:
    """Return the columns of a FeedHead, to be selected from `feed`."""
    newest = func.coalesce(select(func.max(changes.c.seq)).scalar_subquery(), 0)
    compacted = feed.c.compacted_seq
    head = case((newest > compacted, newest), else_=compacted)
    return feed.c.epoch, head.label("seq"), compacted, feed.c.database_identity


class FeedStatements:
    """The statements. Their bounds are bound."""

    def __init__(self) -> None:
        self.head = select(*feed_head())
        after = changes.c.seq > bindparam("seq")
        # An outer join, so that the changes are read first, in the order of one index.
        entries = select(changes.c.seq, *STATE).outerjoin_from(
            changes, jobs, jobs.c.id == changes.c.job_id
        )
        entries = entries.limit(bindparam("count"))
        self.changes = entries.where(after, changes.c.seq <= bindparam("until")).order_by(
            changes.c.seq
        )
        # Only one index has this order. With an equation of the owner PostgreSQL might read
        # everybody's changes in the order of `seq`.
        owner_and_seq = tuple_(changes.c.user_id, changes.c.seq)
        indexed = (
            select(changes.c.seq, changes.c.job_id)
            .where(
                owner_and_seq > tuple_(bindparam("user_id"), bindparam("seq")),
                changes.c.user_id <= bindparam("user_id"),
            )
            .order_by(changes.c.user_id, changes.c.seq)
            .limit(bindparam("count"))
            .subquery()
        )
        # Reports are not in that index.
        held = select(jobs.c.change_seq, jobs.c.id).where(
            jobs.c.user_id == bindparam("user_id"),
            text(HELD_OF),
            jobs.c.change_seq > bindparam("seq"),
        )
        owned = union(select(indexed), held).subquery()
        self.owned_changes = (
            select(owned.c.seq, *STATE)
            .outerjoin_from(owned, jobs, jobs.c.id == owned.c.job_id)
            .order_by(owned.c.seq)
            .limit(bindparam("count"))
        )
        # The row of a start, of an unfinished job or of a deleted one has the time NULL, and that
        # of a job with a retention of its own, or that is deleted with its group.
        latest = and_(
            jobs.c.id == changes.c.job_id,
            jobs.c.change_seq == changes.c.seq,
            NOT_DELETED,
            jobs.c.retention.is_(None),
            jobs.c.group_id.is_(None),
        )
        ends = select(changes.c.seq, changes.c.job_id, jobs.c.complete_time)
        self.ends = (
            ends.outerjoin(jobs, latest)
            .where(after)
            .order_by(changes.c.seq)
            .limit(bindparam("count"))
        )
        active = select(*STATE).where(text(ACTIVE)).order_by(jobs.c.user_id, jobs.c.id)
        active = active.limit(bindparam("count"))
        owner_and_id = tuple_(jobs.c.user_id, jobs.c.id)
        self.active_jobs = active.where(
            owner_and_id > tuple_(bindparam("after_user_id"), bindparam("after_id", type_=ID))
        )
        self.owned_active_jobs = active.where(
            owner_and_id > tuple_(bindparam("user_id"), bindparam("after_id", type_=ID)),
            jobs.c.user_id <= bindparam("user_id"),
        )
