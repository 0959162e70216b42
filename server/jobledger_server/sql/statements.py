"""Every fixed statement of the store, compiled once."""

from collections.abc import Collection
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Select,
    and_,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.sql import ClauseElement

from jobledger_server.domain.job import JobId, is_id
from jobledger_server.sql.blocking_statements import BlockingStatements
from jobledger_server.sql.dialect import Dialect
from jobledger_server.sql.driver import Prepared
from jobledger_server.sql.feed_statements import FeedStatements
from jobledger_server.sql.output_statements import OutputStatements
from jobledger_server.sql.rows import (
    ASSET_COLUMNS,
    ATTEMPT_COLUMNS,
    CHECKPOINT,
    KEPT_COLUMNS,
    PARAMETERS,
    count_rows,
    deletion_rows,
    end_rows,
    group_rows,
    job_rows,
    move_rows,
    report_rows,
    state_rows,
)
from jobledger_server.sql.tables import (
    ACTIVE,
    HELD_BY,
    NOT_DELETED,
    OUTCOME_COLUMNS,
    OUTLIVED_TIME,
    OUTLIVING,
    RERUNS,
    STATE,
    UNIQUE,
    assets,
    attempts,
    changes,
    feed,
    jobs,
    payloads,
    queues,
    tenant,
)
from jobledger_server.sql.write_statements import Deletion, Insertion, Update, replacement

# In the text and not bound: otherwise the planner cannot use a partial index.
_NONE = text("''")


RECORD_POLLER = text(
    "INSERT INTO pollers (server, job_type, expire_time) VALUES (:server, :job_type, :expire_time)"
    " ON CONFLICT (job_type, server) DO UPDATE SET expire_time = excluded.expire_time"
)


def bind_ids(dialect: Dialect, name: str, ids: Collection[JobId]) -> dict[str, Any]:
    """Return the parameters for a list of ids. A text that cannot be an id names no job."""
    return dialect.bind_list(name, [job_id for job_id in ids if is_id(job_id)])


def with_payloads(*kinds: int) -> Select[Any]:
    """Return the statement for jobs with these kinds of payloads, one row a job."""
    statement = select(*STATE).select_from(jobs)
    for kind in kinds:
        payload = payloads.alias()
        own = and_(payload.c.job_id == jobs.c.id, payload.c.kind == text(str(kind)))
        statement = statement.add_columns(payload.c.content).outerjoin_from(jobs, payload, own)
    return statement


def _queue_id(queues: str, job: str) -> str:
    """Return the query for the id of the queue of a job that gets the priority of `new`.

    The rows of queues are written before those of their jobs, or by the same statement.
    """
    return (
        f"(SELECT queue.id FROM {queues} AS queue WHERE queue.job_type = {job}.job_type"  # noqa: S608
        f" AND queue.priority = new.priority AND queue.fairness_key = {tenant(job)})"
    )


class Statements:
    """The statements for a dialect. Their lists are bound, so their text never changes.

    Those that a batch runs are prepared for the driver.
    """

    def __init__(self, dialect: Dialect) -> None:
        def prepared(statement: ClauseElement) -> Prepared:
            return Prepared(statement, dialect.sqlalchemy)

        self.dialect = dialect
        by_id = dialect.one_of(jobs.c.id, "ids"), NOT_DELETED
        self.read_jobs = prepared(select(*STATE).where(*by_id))
        # Those of deleted jobs too.
        self.read_assets = prepared(
            select(assets)
            .where(dialect.one_of(assets.c.job_id, "ids"))
            .order_by(assets.c.job_id, assets.c.id)
        )
        self.read_full_jobs = prepared(
            with_payloads(PARAMETERS, CHECKPOINT)
            .add_columns(*(jobs.c[name] for name in OUTCOME_COLUMNS))
            .where(*by_id)
        )
        # In the order of the ids, so that transactions do not deadlock.
        self.lock_jobs = prepared(dialect.locked(select(*STATE).where(*by_id).order_by(jobs.c.id)))
        # With the virtual time of its queue, and the time, which a claim always needs.
        claimed = with_payloads(PARAMETERS, CHECKPOINT).outerjoin_from(
            jobs, queues, queues.c.id == jobs.c.queue_id
        )
        self.lock_claimed = prepared(
            dialect.locked(
                claimed.add_columns(queues.c.vtime, dialect.clock).where(*by_id), skip=True
            )
        )
        self.find_created = prepared(
            dialect.with_tuples(
                with_payloads(PARAMETERS).where(jobs.c.request_id != _NONE),
                (jobs.c.user_id, jobs.c.request_id),
                "requests",
            )
        )
        self.find_active = prepared(
            dialect.with_tuples(
                select(*STATE).where(text(UNIQUE)),
                (jobs.c.user_id, jobs.c.job_type, jobs.c.unique_key),
                "keys",
            )
        )
        reruns = jobs.c.origin_job_id, text(RERUNS)
        self.find_reruns = prepared(
            select(*STATE).where(dialect.one_of(reruns[0], "origins"), reruns[1])
        )
        self.find_linked = prepared(
            dialect.with_tuples(
                select(assets).where(assets.c.request_id != _NONE),
                (assets.c.job_id, assets.c.request_id),
                "requests",
            )
        )
        self.find_named = prepared(
            dialect.with_tuples(
                select(assets).where(assets.c.name != _NONE),
                (assets.c.job_id, assets.c.name),
                "names",
            )
        )
        new, moved = _queue_id(dialect.counted_queues, "new"), _queue_id("queues", "jobs")
        self.insert_jobs = Insertion(jobs, job_rows.columns, inserted={"queue_id": new})
        self.report_jobs = Update(jobs, report_rows.columns, KEPT_COLUMNS)
        self.update_jobs = Update(jobs, state_rows.columns, KEPT_COLUMNS)
        self.end_jobs = Update(jobs, end_rows.columns, KEPT_COLUMNS)
        self.count_groups = Update(jobs, count_rows.columns, KEPT_COLUMNS)
        self.update_groups = Update(jobs, group_rows.columns, KEPT_COLUMNS)
        self.delete_jobs = Update(jobs, deletion_rows.columns, KEPT_COLUMNS)
        self.move_jobs = Update(jobs, move_rows.columns, KEPT_COLUMNS, {"queue_id": moved})
        self.insert_changes = Insertion(changes, changes.c.keys())
        self.move_changes = Update(changes, ("seq", "user_id"))
        self.insert_assets = Insertion(assets, ASSET_COLUMNS)
        self.replace_assets = replacement(assets, ASSET_COLUMNS)
        self.insert_payloads = Insertion(payloads, payloads.c.keys())
        self.replace_payloads = replacement(payloads, payloads.c.keys())
        self.delete_payloads = Deletion(payloads, "job_id")
        self.outputs = OutputStatements(dialect)
        self.insert_attempts = Insertion(attempts, ATTEMPT_COLUMNS)
        self.blocking = BlockingStatements(dialect)
        active = (
            select(jobs.c.id)
            .where(jobs.c.user_id == bindparam("user_id"), text(ACTIVE))
            .limit(bindparam("count"))
            .subquery()
        )
        self.count_active = select(func.count()).select_from(active)
        types: BindParameter[Any] = bindparam("job_types", expanding=True)
        self.find_held = (
            select(jobs.c.id, jobs.c.attempt)
            .where(
                jobs.c.worker_id == bindparam("worker_id"),
                text(HELD_BY),
                jobs.c.job_type.in_(types),
            )
            .order_by(jobs.c.id)
            .limit(bindparam("count"))
        )
        self.feed = FeedStatements()
        self.feed_head = prepared(self.feed.head)
        self.forget = ForgetStatements(dialect)
        outlived_time = literal_column(OUTLIVED_TIME, BigInteger)
        self.outlived = (
            select(jobs.c.id)
            .where(text(OUTLIVING), outlived_time < dialect.clock)
            .order_by(outlived_time)
            .limit(bindparam("count"))
        )
        self.renew_epoch = (
            update(feed).where(feed.c.epoch == bindparam("old")).values(epoch=bindparam("new"))
        )
        self.verify_identity = (
            update(feed)
            .where(feed.c.database_identity != dialect.database_identity)
            .values(database_identity=dialect.database_identity, epoch=bindparam("new"))
        )


class ForgetStatements:
    """The statements that forget old deletions."""

    def __init__(self, dialect: Dialect) -> None:
        # First the oldest, then which of them are old enough: otherwise, if none is, the statement
        # reads all of them.
        oldest = (
            select(jobs.c.id, jobs.c.delete_time)
            .where(jobs.c.delete_seq.is_not(None))
            .order_by(jobs.c.delete_seq)
            .limit(bindparam("count"))
            .subquery()
        )
        old = select(oldest.c.id).where(oldest.c.delete_time < bindparam("before"))
        # Locked first, but for those that another server forgets. Only who has locked a deleted job
        # writes its rows of other tables, in any order.
        self.lock = dialect.locked(
            select(jobs.c.id, jobs.c.start_seq, jobs.c.change_seq, jobs.c.delete_seq).where(
                jobs.c.id.in_(old)
            ),
            skip=True,
        )
        ids: BindParameter[Any] = bindparam("ids", expanding=True)
        self.changes = delete(changes).where(changes.c.seq.in_(bindparam("seqs", expanding=True)))
        self.attempts = delete(attempts).where(attempts.c.job_id.in_(ids))
        # With their assets.
        self.jobs = delete(jobs).where(jobs.c.id.in_(ids))
        self.set_compacted_seq = (
            update(feed)
            .where(feed.c.compacted_seq < bindparam("last"))
            .values(compacted_seq=bindparam("last"))
        )


statements_for = cache(Statements)
"""Returns those for a dialect. Their compilation takes tens of milliseconds, the first time."""
