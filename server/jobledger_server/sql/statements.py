"""Every fixed statement of the store, compiled once."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    bindparam,
    delete,
    func,
    select,
    text,
    true,
    update,
)
from sqlalchemy.engine.interfaces import Dialect as SqlDialect
from sqlalchemy.sql import ClauseElement

from jobledger_server.domain.job import JobId, is_id
from jobledger_server.sql.dialect import Dialect
from jobledger_server.sql.driver import Prepared
from jobledger_server.sql.feed_statements import FeedStatements
from jobledger_server.sql.history import HISTORY_COLUMNS
from jobledger_server.sql.rows import (
    ASSET_COLUMNS,
    DEADLINE_COLUMNS,
    LEASE_COLUMNS,
    RENEWAL_COLUMNS,
    TOMBSTONE_COLUMNS,
    job_rows,
    mutable_rows,
    report_rows,
)
from jobledger_server.sql.tables import (
    ACTIVE,
    assets,
    changes,
    feed,
    jobs,
    tombstones,
)

# In the text and not bound: otherwise the planner cannot use a partial index.
_NONE = text("''")


def bind_ids(dialect: Dialect, name: str, ids: Collection[JobId]) -> dict[str, Any]:
    """Return the parameters for a list of ids. A text that cannot be an id names no job."""
    return dialect.bind_list(name, [job_id for job_id in ids if is_id(job_id)])


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
        self.read_jobs = prepared(jobs_by_id)
        # In the order of the ids, so that transactions do not deadlock.
        self.lock_jobs = prepared(dialect.locked(jobs_by_id.order_by(jobs.c.id)))
        leases_by_id = jobs_by_id.with_only_columns(*(jobs.c[name] for name in LEASE_COLUMNS))
        self.lock_leases = prepared(dialect.locked(leases_by_id.order_by(jobs.c.id)))
        # With the time, which a claim always needs.
        self.lock_unlocked_jobs = prepared(
            dialect.locked(jobs_by_id.add_columns(dialect.clock), skip=True)
        )
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
        self.delete_changes = dialect.deletion(
            changes,
            "changes.seq IN (SELECT change_seq FROM jobs WHERE id {in_ids}"
            " UNION SELECT start_seq FROM jobs WHERE id {in_ids})",
        )
        self.delete_jobs = dialect.deletion(jobs, "id {in_ids}")
        self.insert_jobs = dialect.insertion(jobs, job_rows.columns)
        self.update_jobs = dialect.change(
            jobs, jobs.c.id, mutable_rows.columns, kept=HISTORY_COLUMNS
        )
        self.report_jobs = dialect.change(jobs, jobs.c.id, report_rows.columns)
        self.renew_jobs = dialect.change(jobs, jobs.c.id, RENEWAL_COLUMNS)
        self.set_deadlines = dialect.change(jobs, jobs.c.id, DEADLINE_COLUMNS)
        self.insert_changes = dialect.insertion(changes, changes.c.keys())
        self.move_changes = dialect.change(changes, changes.c.seq, ("seq",))
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
        active = (
            select(jobs.c.id)
            .where(jobs.c.user_id == bindparam("user_id"), text(ACTIVE))
            .limit(bindparam("count"))
            .subquery()
        )
        self.count_active = select(func.count()).select_from(active)
        self.feed = FeedStatements(dialect)
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
        old = tombstones.c.change_seq <= bindparam("last")
        self.compact_changes = delete(changes).where(
            changes.c.seq.in_(select(tombstones.c.change_seq).where(old))
        )
        self.compact_deletions = delete(tombstones).where(old)
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
