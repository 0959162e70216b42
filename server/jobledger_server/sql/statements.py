"""Every fixed statement of the store."""

from sqlalchemy import bindparam, delete, insert, select, text, update

from jobledger_server.sql.dialect import Dialect
from jobledger_server.sql.rows import MUTABLE_COLUMNS
from jobledger_server.sql.tables import assets, feed, job_transitions, jobs, tombstones

# In the text and not bound: else no partial index is seen to apply.
_NONE = text("''")


class Statements:
    """Built once for a dialect. The lists in them are bound, so that their text never changes."""

    def __init__(self, dialect: Dialect) -> None:
        jobs_by_id = select(jobs).where(dialect.one_of(jobs.c.id, "ids"))
        self.read_jobs = jobs_by_id
        # In the order of the ids, so that two transactions never wait for each other.
        self.lock_jobs = dialect.locked(jobs_by_id.order_by(jobs.c.id))
        self.find_created = select(jobs).where(
            jobs.c.request_id != _NONE,
            dialect.pair_of(jobs.c.user_id, jobs.c.request_id, "requests"),
        )
        self.find_linked = select(assets).where(
            assets.c.request_id != _NONE,
            dialect.pair_of(assets.c.job_id, assets.c.request_id, "requests"),
        )
        self.read_transitions = (
            select(job_transitions)
            .where(dialect.one_of(job_transitions.c.job_id, "ids"))
            .order_by(job_transitions.c.job_id, job_transitions.c.version)
        )
        self.take_places = (
            update(feed).values(seq=feed.c.seq + bindparam("count")).returning(feed.c.seq)
        )
        self.insert_jobs = insert(jobs)
        self.update_jobs = (
            update(jobs)
            .where(jobs.c.id == bindparam("b_id"))
            .values({name: bindparam(name) for name in MUTABLE_COLUMNS})
        )
        self.delete_jobs = delete(jobs).where(jobs.c.id == bindparam("b_id"))
        self.insert_transitions = insert(job_transitions)
        self.insert_assets = insert(assets)
        self.insert_tombstones = insert(tombstones)
        self.overdue = (
            select(jobs.c.id)
            .where(jobs.c.deadline <= dialect.clock)
            .order_by(jobs.c.deadline)
            .limit(bindparam("count"))
        )
        self.feed_head = select(feed.c.epoch, feed.c.seq)
        self.changed_jobs = (
            select(jobs)
            .where(jobs.c.change_seq > bindparam("seq"))
            .order_by(jobs.c.change_seq)
            .limit(bindparam("count"))
        )
        self.deleted_jobs = (
            select(tombstones)
            .where(tombstones.c.change_seq > bindparam("seq"))
            .order_by(tombstones.c.change_seq)
            .limit(bindparam("count"))
        )
        self.changed_transitions = (
            select(job_transitions)
            .where(
                job_transitions.c.change_seq > bindparam("seq"),
                job_transitions.c.change_seq <= bindparam("last"),
            )
            .order_by(job_transitions.c.change_seq)
        )
