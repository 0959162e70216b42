"""Counts, and what keeps a job waiting. See `queue_store.QueueReports`.

The counts are those of the counters, so they are as exact as the commits that changed them. Each
answer is read in one snapshot.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    bindparam,
    case,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from jobledger_server.domain.job import (
    MICROS_PER_SECOND,
    Instant,
    Job,
    JobId,
    JobStatus,
    Phase,
    is_id,
)
from jobledger_server.domain.limits import MAX_COUNTED, MAX_HOLDERS, MAX_REPORTED_REASONS
from jobledger_server.domain.queues import ENDED_STEP, OTHER_REASON, KeyState, rule_name
from jobledger_server.domain.waiting import Pause, Queued, WaitFacts
from jobledger_server.queue_store import EndedCount, PhaseCounts, StatsPage, TypeStats
from jobledger_server.sql.dialect import FIRST_QUEUES, Dialect
from jobledger_server.sql.rows import job_from_row
from jobledger_server.sql.store_connections import StoreConnections
from jobledger_server.sql.tables import (
    DUE_TIME,
    HELD,
    ID,
    IS_LEVEL,
    KEYED,
    NOT_DELETED,
    PHASES,
    READY,
    STATE,
    ended,
    jobs,
    levels,
    limit_keys,
    limit_rules,
    paused_types,
    pollers,
    queues,
)

MAX_HEADS = 100_000
"""First jobs of queues that one answer looks at, shared by its types."""

MAX_HEADS_OF_TYPE = 1000
"""The same for one type."""

MINUTE, HOUR = 60 * MICROS_PER_SECOND, 3600 * MICROS_PER_SECOND

_ANY = " OR ".join(f"{name} > 0" for name in PHASES)

# The names one by one, by the first columns of three indexes. `+ 0` keeps the planner from the
# index on times: nearly every row's is later.
_NEXT_NAME = f"""
    SELECT min(job_type) FROM (
        SELECT min(job_type) AS job_type FROM queues
        WHERE {IS_LEVEL} AND job_type > {{after}} AND ({_ANY})
        UNION ALL SELECT min(job_type) FROM paused_types WHERE job_type > {{after}}
        UNION ALL SELECT min(job_type) FROM ended WHERE job_type > {{after}} AND time + 0 > :since
    ) AS following
"""  # noqa: S608
NAMES = text(
    f"WITH RECURSIVE names (job_type) AS ({_NEXT_NAME.format(after=':after')} UNION ALL "  # noqa: S608
    f"SELECT ({_NEXT_NAME.format(after='names.job_type')}) FROM names "
    "WHERE names.job_type IS NOT NULL) "
    "SELECT job_type FROM names WHERE job_type IS NOT NULL LIMIT :count"
)
NAMES_OF_TENANT = text(
    f"SELECT DISTINCT job_type FROM queues WHERE fairness_key = :fairness_key "  # noqa: S608
    f"AND job_type > :after AND ({_ANY}) ORDER BY job_type LIMIT :count"
)

# The first job of each queue is its oldest. Without `jobs.` PostgreSQL would order by the CASE,
# which it names create_time: it would find another job, and read the whole queue. The queues are in
# the order of their index: without an order the planner would read the table where one type has
# most of it.
_OLDEST = f"""
    (SELECT min(since) FROM (
        SELECT (
            SELECT CASE WHEN {DUE_TIME} > create_time THEN {DUE_TIME} ELSE create_time END
            FROM jobs WHERE queue_id = queues.id AND {READY}
            ORDER BY jobs.create_time, jobs.id LIMIT 1
        ) AS since
        FROM queues WHERE queues.job_type = levels.job_type AND {FIRST_QUEUES} LIMIT :heads
    ) AS heads)
"""  # noqa: S608


class ReportStatements:
    """The statements for a dialect that read the counts of the types that are bound as `types`."""

    def __init__(self, dialect: Dialect) -> None:
        def named(table: FromClause) -> ColumnElement[bool]:
            return dialect.one_of(table.c.job_type, "types")

        # Of a tenant; of no tenant those of the levels.
        phases = [queues.c[name] for name in PHASES]
        self.counts = (
            select(queues.c.job_type, queues.c.priority, *phases)
            .where(queues.c.fairness_key == bindparam("fairness_key"), named(queues))
            .where(or_(*(column > 0 for column in phases)))
            .order_by(queues.c.priority.desc())
        )
        self.pauses = select(paused_types).where(named(paused_types))
        self.polled = (
            select(pollers.c.job_type)
            .where(named(pollers), pollers.c.expire_time > bindparam("now", type_=BigInteger))
            .distinct()
        )
        self.oldest = (
            select(levels.c.job_type, text(_OLDEST))
            .where(text(f"levels.{IS_LEVEL}"), named(levels), levels.c.ready > 0)
            .group_by(levels.c.job_type)
        )
        self.ended = _ended(named(ended))


_statements_for = cache(ReportStatements)


class SqlQueueReports:
    """See `queue_store.QueueReports`."""

    def __init__(self, connections: StoreConnections, dialect: Dialect) -> None:
        self._connections = connections
        self._dialect = dialect
        self._statements = _statements_for(dialect)

    async def stats(
        self,
        *,
        limit: int,
        after: str = "",
        job_types: Collection[str] = (),
        fairness_key: str = "",
    ) -> StatsPage:
        async def read(connection: AsyncConnection) -> StatsPage:
            now = await self._dialect.now(connection)
            if job_types:
                names = sorted(name for name in set(job_types) if name > after)
            else:
                bound = {"after": after, "count": limit + 1}
                if fairness_key:
                    bound["fairness_key"] = fairness_key
                else:
                    bound["since"] = _since(now, HOUR)
                statement = NAMES_OF_TENANT if fairness_key else NAMES
                names = [name for (name,) in await connection.execute(statement, bound)]
            types = await self._types(connection, names[:limit], fairness_key, now)
            return StatsPage(now, types, more=len(names) > limit)

        return await self._connections.read_list(read)

    async def _types(
        self, connection: AsyncConnection, names: Sequence[str], fairness_key: str, now: Instant
    ) -> Sequence[TypeStats]:
        if not names:
            return ()

        async def rows(statement: Any, **bound: Any) -> Sequence[Any]:
            listed = self._dialect.bind_list("types", names)
            return (await connection.execute(statement, {**listed, **bound})).all()

        counts: defaultdict[str, dict[int, PhaseCounts]] = defaultdict(dict)
        counted = await rows(self._statements.counts, fairness_key=fairness_key)
        for name, priority, *phases in counted:
            counts[name][priority] = PhaseCounts(*phases)
        pauses = {name: Pause(*pause) for name, *pause in await rows(self._statements.pauses)}
        polled = {name for (name,) in await rows(self._statements.polled, now=now)}
        oldest: Mapping[str, Instant] = {}
        minute: Mapping[str, Sequence[EndedCount]] = {}
        hour: Mapping[str, Sequence[EndedCount]] = {}
        if not fairness_key:
            heads = max(1, min(MAX_HEADS_OF_TYPE, MAX_HEADS // len(names)))
            oldest = dict(map(tuple, await rows(self._statements.oldest, heads=heads)))
            times = {"since": _since(now, HOUR), "minute": _since(now, MINUTE)}
            minute, hour = _ended_counts(await rows(self._statements.ended, **times))
        return [
            TypeStats(
                name,
                counts[name],
                oldest.get(name),
                pauses.get(name),
                name in polled,
                minute.get(name, ()),
                hour.get(name, ()),
            )
            for name in names
        ]

    async def wait_facts(self, job_id: JobId, *, user_id: str | None) -> WaitFacts | None:
        async def read(connection: AsyncConnection) -> WaitFacts | None:
            one = select(*STATE).where(jobs.c.id == bindparam("id", type_=ID), NOT_DELETED)
            found = (await connection.execute(one, {"id": job_id})).first()
            job = None if found is None else job_from_row(found)
            if job is None or user_id not in (None, job.user_id):
                return None
            return await self._facts(connection, job, user_id)

        return await self._connections.read_list(read) if is_id(job_id) else None

    async def _facts(self, connection: AsyncConnection, job: Job, user_id: str | None) -> WaitFacts:
        if job.phase in (None, Phase.HELD, Phase.WAITING):
            return WaitFacts(job, polled=True)
        now = await self._dialect.now(connection)
        named = self._dialect.bind_list("types", [job.job_type])
        polled = await connection.execute(self._statements.polled, {**named, "now": now})
        pause = (await connection.execute(self._statements.pauses, named)).first()
        key, key_pauses = KeyState(), _NO_PAUSES
        holders: Sequence[JobId] = ()
        if job.concurrency_key:
            key, key_pauses = await _key(connection, job.concurrency_key)
            holders = await _holders(connection, job.concurrency_key, user_id)
        return WaitFacts(
            job,
            polled=polled.first() is not None,
            type_pause=None if pause is None else Pause(*pause[1:]),
            key=key,
            key_pauses=key_pauses,
            holders=holders,
            place=await _place(connection, job),
        )


def _since(now: Instant, span: int) -> int:
    """Return the time after which the steps begin that are not over before the span."""
    return now - span - ENDED_STEP


def _ended(named: ColumnElement[bool]) -> Any:
    """Return the statement for what ended, with further reasons summed up."""
    recent = case((ended.c.time > bindparam("minute", type_=BigInteger), ended.c.count), else_=0)
    count = func.sum(ended.c.count)
    number = func.row_number().over(
        partition_by=ended.c.job_type, order_by=(count.desc(), ended.c.status, ended.c.reason)
    )
    totals = (
        select(
            ended.c.job_type,
            ended.c.status,
            ended.c.reason,
            func.sum(recent).label("minute"),
            count.label("hour"),
            number.label("number"),
        )
        .where(named, ended.c.time > bindparam("since", type_=BigInteger))
        .group_by(ended.c.job_type, ended.c.status, ended.c.reason)
        .subquery()
    )
    further = totals.c.number > literal_column(str(MAX_REPORTED_REASONS))
    named_reason = case((further, literal_column(f"'{OTHER_REASON}'")), else_=totals.c.reason)
    reason = named_reason.label("reason")
    named_totals = select(
        totals.c.job_type, totals.c.status, reason, totals.c.minute, totals.c.hour
    ).subquery()
    group = [named_totals.c[name] for name in ("job_type", "status", "reason")]
    sums = [func.sum(named_totals.c[name]) for name in ("minute", "hour")]
    return select(*group, *sums).group_by(*group)


_Ended = Mapping[str, Sequence[EndedCount]]

_NO_PAUSES: Sequence[tuple[str, Pause]] = ()


def _ended_counts(rows: Sequence[Any]) -> tuple[_Ended, _Ended]:
    """Return by job type what ended in the last minute and hour, the greatest count first."""
    spans: tuple[defaultdict[str, list[EndedCount]], ...] = defaultdict(list), defaultdict(list)
    for name, status, reason, *counts in rows:
        for span, count in zip(spans, counts, strict=True):
            if count:
                span[name].append(EndedCount(JobStatus(status), reason, int(count)))
    for span in spans:
        for found in span.values():
            found.sort(key=lambda each: (-each.count, each.status.value, each.reason))
    return spans[0], spans[1]


async def _key(
    connection: AsyncConnection, key: str
) -> tuple[KeyState, Sequence[tuple[str, Pause]]]:
    """Return the state of a concurrency key, and its pauses by name, its own first."""
    held = select(limit_keys.c.running).where(limit_keys.c.key == key)
    running = await connection.scalar(held)
    names = dict.fromkeys((key, rule_name(key)))
    found = await connection.execute(select(limit_rules).where(limit_rules.c.name.in_(names)))
    rules = {name: (most, pause) for name, most, *pause in found}
    own = [rules[name] for name in names if name in rules]
    limits = [most for most, _ in own if most is not None]
    pauses = [
        (name, Pause(*rules[name][1]))
        for name in names
        if name in rules and rules[name][1][0] is not None
    ]
    return KeyState(running or 0, limits[0] if limits else None, bool(pauses)), pauses


def holders_of(key: str) -> Select[Any]:
    """Return the statement for the jobs that hold slots of a key."""
    columns = jobs.c.id, jobs.c.user_id, jobs.c.create_time
    return select(*columns).where(jobs.c.concurrency_key == key, text(KEYED), text(HELD))


async def _holders(connection: AsyncConnection, key: str, user_id: str | None) -> Sequence[JobId]:
    """Return jobs that hold slots of a key, the oldest first; of one owner if it is given."""
    some = holders_of(key).limit(MAX_COUNTED).subquery()
    oldest = select(some.c.id).order_by(some.c.create_time, some.c.id).limit(MAX_HOLDERS)
    if user_id is not None:
        oldest = oldest.where(some.c.user_id == user_id)
    return list((await connection.scalars(oldest)).all())


def ahead_of(job: Job) -> Select[Any]:
    """Return the statement for the ready jobs of a job's queue that go before it."""
    own = tuple_(literal(job.create_time), literal(job.id, ID))
    before = tuple_(jobs.c.create_time, jobs.c.id) < own
    queue = select(jobs.c.queue_id).where(jobs.c.id == literal(job.id, ID)).scalar_subquery()
    return select(jobs.c.id).where(jobs.c.queue_id == queue, text(READY), before)


async def _place(connection: AsyncConnection, job: Job) -> Queued:
    """Return where a job stands, or would stand, in its queue."""
    ahead = await _count(connection, ahead_of(job), MAX_COUNTED + 1)
    higher = select(func.coalesce(func.sum(levels.c.ready), 0)).where(
        text(IS_LEVEL), levels.c.job_type == job.job_type, levels.c.priority > job.priority
    )
    tenants = select(queues.c.id).where(
        queues.c.job_type == job.job_type,
        queues.c.priority == job.priority,
        text("claimable = 1"),
    )
    return Queued(
        ahead=min(ahead, MAX_COUNTED),
        capped=ahead > MAX_COUNTED,
        higher_priority=int(await connection.scalar(higher) or 0),
        tenants=await _count(connection, tenants, MAX_COUNTED),
    )


async def _count(connection: AsyncConnection, rows: Any, most: int) -> int:
    """Count the rows of a statement, no further than `most`."""
    some = rows.limit(most).subquery()
    return int(await connection.scalar(select(func.count()).select_from(some)) or 0)
