"""The statements about blocked jobs, jobs whose time has come, and what lets others go on."""

from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    and_,
    bindparam,
    func,
    literal_column,
    select,
    text,
    true,
    update,
)

from jobledger_server.sql.dialect import Dialect
from jobledger_server.sql.driver import Prepared
from jobledger_server.sql.feed_statements import feed_head
from jobledger_server.sql.tables import (
    BLOCKED,
    DUE_TIME,
    IS_LEVEL,
    KNOWN_PHASE,
    READY,
    SCHEDULED,
    STATE,
    feed,
    jobs,
    levels,
    limit_keys,
)


class BlockingStatements:
    """The statements for a dialect."""

    def __init__(self, dialect: Dialect) -> None:
        clock = dialect.clock

        def passed(condition: str, time: ColumnElement[int], *columns: ColumnElement[Any]) -> Any:
            """Return the statement for jobs whose time has passed, the earliest first."""
            # In order: PostgreSQL expects a third of all that wait to be due, and without an order
            # it would read the table to find one of them.
            found = select(*columns).select_from(jobs).where(text(condition), time <= clock)
            return found.order_by(time)

        def locked(statement: Select[Any]) -> Prepared:
            some = statement.limit(bindparam("count"))
            return Prepared(dialect.locked(some, skip=True), dialect.sqlalchemy)

        deadline, due_time = jobs.c.deadline, literal_column(DUE_TIME, BigInteger)
        self.overdue = locked(passed(KNOWN_PHASE, deadline, *STATE, clock))
        self.due = locked(passed(SCHEDULED, due_time, *STATE, clock))
        self.rechecks = (
            select(limit_keys.c.key)
            .where(text("recheck = 1"), limit_keys.c.key > bindparam("after"))
            .order_by(limit_keys.c.key)
            .limit(bindparam("count"))
        )
        recheck = select(limit_keys.c.key).where(text("recheck = 1")).limit(1)
        ready = (
            select(levels.c.job_type, func.sum(levels.c.ready).label("ready"))
            .where(text(IS_LEVEL), dialect.one_of(levels.c.job_type, "types"), levels.c.ready > 0)
            .group_by(levels.c.job_type)
            .subquery()
        )
        # At least one row.
        news = select(
            clock,
            *feed_head(),
            feed.c.config_version,
            passed(KNOWN_PHASE, deadline, deadline).limit(1).scalar_subquery(),
            passed(SCHEDULED, due_time, due_time).limit(1).scalar_subquery(),
            recheck.scalar_subquery(),
            ready,
        )
        self.news = Prepared(news.outerjoin_from(feed, ready, true()), dialect.sqlalchemy)

        keyed = and_(jobs.c.concurrency_key == bindparam("key"), text("concurrency_key <> ''"))
        blocked = select(func.min(jobs.c.job_type).label("job_type")).where(keyed, text(BLOCKED))
        # The types one by one, by the index: a type may have many blocked jobs.
        types = blocked.cte("types", recursive=True)
        following = blocked.where(jobs.c.job_type > types.c.job_type).scalar_subquery()
        types = types.union_all(select(following).where(types.c.job_type.is_not(None)))
        some_ready = (
            select(jobs.c.id)
            .where(keyed, text(READY), jobs.c.job_type == types.c.job_type)
            .limit(bindparam("ready", type_=BigInteger))
            .correlate(types)
            .subquery()
        )
        count = select(func.count()).select_from(some_ready).scalar_subquery()
        found = select(types.c.job_type, count.label("ready")).where(types.c.job_type.is_not(None))
        within = found.subquery()
        self.blocked_types = Prepared(
            select(within)
            .where(within.c.ready < bindparam("ready", type_=BigInteger))
            .limit(bindparam("count")),
            dialect.sqlalchemy,
        )
        self.blocked = locked(
            select(*STATE)
            .where(keyed, text(BLOCKED), jobs.c.job_type == bindparam("job_type"))
            .order_by(jobs.c.priority.desc(), jobs.c.create_time, jobs.c.id)
        )
        clear = update(limit_keys).where(limit_keys.c.key == bindparam("wanted")).values(recheck=0)
        self.clear_recheck = Prepared(clear, dialect.sqlalchemy)
        self.clear_recheck_if_unblocked = Prepared(
            clear.where(limit_keys.c.blocked == 0), dialect.sqlalchemy
        )
