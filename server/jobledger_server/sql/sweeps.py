"""Deletes the counters of what is idle, and finds what was forgotten; see `store.Sweeps`."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Executable,
    FromClause,
    and_,
    bindparam,
    delete,
    exists,
    select,
    text,
    tuple_,
    update,
)

from jobledger_server.domain.job import Micros
from jobledger_server.domain.queues import FORGOTTEN_STARTS
from jobledger_server.sql.dialect import Dialect
from jobledger_server.sql.store_connections import StoreConnections, runs_to_completion
from jobledger_server.sql.tables import (
    IS_LEVEL,
    PHASES,
    READY,
    ended,
    jobs,
    levels,
    limit_keys,
    limit_rules,
    pollers,
    queues,
)
from jobledger_server.store import CountedLevel, Swept


def _empty(table: FromClause) -> ColumnElement[bool]:
    """Return the condition that no job is counted."""
    return and_(*(table.c[name] == 0 for name in PHASES))


_BUSY_LEVEL_FAR_BEHIND = exists().where(
    text(f"levels.{IS_LEVEL}"),
    levels.c.job_type == queues.c.job_type,
    levels.c.priority == queues.c.priority,
    levels.c.vtime + text(str(FORGOTTEN_STARTS)) < queues.c.vtime,
    ~_empty(levels),
)
_IDLE_QUEUE = and_(queues.c.fairness_key != "", _empty(queues), ~_BUSY_LEVEL_FAR_BEHIND)
_IDLE_KEY = and_(*(limit_keys.c[name] == 0 for name in ("running", "blocked", "recheck")))
_LEVEL = tuple_(levels.c.job_type, levels.c.priority)
_ENDED = tuple_(*ended.primary_key.columns)

LEVELS = (
    select(levels.c.job_type, levels.c.priority, levels.c.writes, _empty(levels).label("idle"))
    .where(text(IS_LEVEL), tuple_(bindparam("job_type"), bindparam("priority")) < _LEVEL)
    .order_by(levels.c.job_type, levels.c.priority)
    .limit(bindparam("count"))
)
QUEUES = (
    select(queues.c.id, _IDLE_QUEUE.label("idle"))
    .where(queues.c.id > bindparam("after"))
    .order_by(queues.c.id)
    .limit(bindparam("count"))
)

_RULE = limit_rules.c.name.in_((limit_keys.c.key, limit_keys.c.name))
_FORGOTTEN = and_(
    limit_keys.c.blocked > 0,
    limit_keys.c.running == 0,
    limit_keys.c.recheck == 0,
    ~exists().where(_RULE, limit_rules.c.pause_time.is_not(None)),
    ~exists().where(
        jobs.c.concurrency_key == limit_keys.c.key, text("concurrency_key <> ''"), text(READY)
    ),
)
KEYS = (
    select(limit_keys.c.key, _IDLE_KEY.label("idle"), _FORGOTTEN.label("forgotten"))
    .where(limit_keys.c.key > bindparam("after"))
    .order_by(limit_keys.c.key)
    .limit(bindparam("count"))
)
OLD = (
    select(*ended.primary_key.columns)
    .where(ended.c.time < bindparam("before"))
    .order_by(ended.c.time)
    .limit(bindparam("count"))
)
_FOUND: BindParameter[Any] = bindparam("found", expanding=True)
DELETE_QUEUES = delete(queues).where(queues.c.id.in_(_FOUND), _IDLE_QUEUE)
DELETE_KEYS = delete(limit_keys).where(limit_keys.c.key.in_(_FOUND), _IDLE_KEY)
MARK_KEYS = update(limit_keys).where(limit_keys.c.key.in_(_FOUND), _FORGOTTEN).values(recheck=1)
DELETE_LEVELS = delete(queues).where(
    text(IS_LEVEL),
    tuple_(queues.c.job_type, queues.c.priority, queues.c.writes).in_(_FOUND),
    _empty(queues),
)
DELETE_OLD = delete(ended).where(_ENDED.in_(_FOUND))
DELETE_POLLERS = delete(pollers).where(pollers.c.expire_time < bindparam("before"))


class SqlSweeps:
    """See `store.Sweeps`."""

    def __init__(self, connections: StoreConnections, dialect: Dialect) -> None:
        self._connections = connections
        self._dialect = dialect

    async def levels(self, *, after: tuple[str, int], limit: int) -> list[CountedLevel]:
        bound = {"job_type": after[0], "priority": after[1], "count": limit}
        rows = await self._connections.read(LEVELS, bound)
        return [
            CountedLevel(name, priority, writes, bool(idle))
            for name, priority, writes, idle in rows
        ]

    async def queues(self, *, after: int | None, limit: int) -> Swept[int]:
        rows = await self._connections.read(QUEUES, {"after": after or 0, "count": limit})
        deleted = await self._write(DELETE_QUEUES, [id_ for id_, idle in rows if idle])
        return Swept(rows[-1][0] if len(rows) == limit else None, deleted)

    async def keys(self, *, after: str, limit: int) -> Swept[str]:
        rows = await self._connections.read(KEYS, {"after": after, "count": limit})
        await self._write(MARK_KEYS, [key for key, _, forgotten in rows if forgotten])
        deleted = await self._write(DELETE_KEYS, [key for key, idle, _ in rows if idle])
        return Swept(rows[-1][0] if len(rows) == limit else None, deleted)

    async def delete_levels(self, levels: Sequence[CountedLevel]) -> int:
        found = [(level.job_type, level.priority, level.writes) for level in levels]
        return await self._write(DELETE_LEVELS, found)

    @runs_to_completion
    async def ended(self, age: Micros, *, limit: int) -> int:
        async with self._connections.snapshot() as connection:
            before = await self._dialect.now(connection) - age
            rows = (await connection.execute(OLD, {"before": before, "count": limit})).all()
        return await self._write(DELETE_OLD, [tuple(row) for row in rows])

    @runs_to_completion
    async def pollers(self) -> None:
        async with self._connections.writing() as connection:
            before = await self._dialect.now(connection)
            await connection.execute(DELETE_POLLERS, {"before": before})

    @runs_to_completion
    async def _write(self, statement: Executable, found: Sequence[Any]) -> int:
        """Delete or mark rows by their keys while the feed is locked, if they are still so."""
        if not found:
            return 0
        async with self._connections.writing_under_lock() as connection:
            return (await connection.execute(statement, {"found": found})).rowcount
