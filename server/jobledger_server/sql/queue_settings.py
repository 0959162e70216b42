"""Pauses, limits, defaults and the key of watch tokens. See `queue_store.QueueSettings`."""

import os
from collections.abc import Sequence
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import Table, bindparam, delete, func, insert, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.job import Instant
from jobledger_server.domain.limits import (
    MAX_CONCURRENCY_LIMITS,
    MAX_COUNTED_KEYS,
    MAX_DEFAULTED_JOB_TYPES,
    MAX_PAUSED_JOB_TYPES,
)
from jobledger_server.domain.type_defaults import NO_DEFAULTS, TypeDefaults
from jobledger_server.domain.waiting import Pause
from jobledger_server.queue_store import Limit
from jobledger_server.sql.dialect import Dialect
from jobledger_server.sql.store_connections import StoreConnections, runs_to_completion
from jobledger_server.sql.tables import (
    feed,
    limit_keys,
    limit_rules,
    paused_types,
    type_defaults,
)
from jobledger_server.store import Config
from jobledger_server.tuning import Tuning

# A key without a `:` is its own name. The two sums read disjoint keys, each by an index: only one
# has the order of names and keys.
_COUNT = (
    "(SELECT coalesce(sum({counter}), 0) FROM (SELECT {counter} FROM limit_keys"
    " WHERE (limit_keys.name, limit_keys.key) >= (rules.name, '') AND limit_keys.name <= rules.name"
    " ORDER BY limit_keys.name, limit_keys.key LIMIT :keys) AS counted)"
    " + (SELECT coalesce(sum({counter}), 0) FROM limit_keys"
    " WHERE limit_keys.key = rules.name AND limit_keys.name <> rules.name)"
)
LIMITS = text(
    "SELECT name, max_running, pause_time, pause_actor, pause_reason,"  # noqa: S608
    f" {_COUNT.format(counter='running')}, {_COUNT.format(counter='blocked')} "
    "FROM limit_rules AS rules WHERE name >= :first AND name <= :last ORDER BY name"
)
_NAMES = (
    select(limit_rules.c.name)
    .where(limit_rules.c.name > bindparam("after"))
    .order_by(limit_rules.c.name)
    .limit(bindparam("count"))
)

# Likewise. It reads so many keys, and returns those with blocked jobs. Each row begins with the
# last key that was read, and their number. Without blocked jobs one row is left, without a key.
_PAGE = (
    select(limit_keys.c.key, limit_keys.c.blocked)
    .where(
        tuple_(limit_keys.c.name, limit_keys.c.key) > tuple_(bindparam("name"), bindparam("after")),
        limit_keys.c.name <= bindparam("name"),
    )
    .order_by(limit_keys.c.name, limit_keys.c.key)
    .limit(bindparam("count"))
    .cte("page")
)
_READ = select(func.max(_PAGE.c.key).label("last"), func.count().label("number")).subquery()
KEYS = select(_READ.c.last, _READ.c.number, _PAGE.c.key).outerjoin_from(
    _READ, _PAGE, _PAGE.c.blocked > 0
)
_MARK = (
    update(limit_keys)
    .where(limit_keys.c.key.in_(bindparam("found", expanding=True)), limit_keys.c.blocked > 0)
    .values(recheck=1)
)

_RAISE_VERSION = update(feed).values(config_version=feed.c.config_version + 1)

_WATCH_KEY = select(feed.c.watch_key)

_DEFAULTS = select(
    type_defaults.c.job_type,
    *(type_defaults.c[name] for name in TypeDefaults.__struct_fields__),
)
_DEFAULTS_PAGE = (
    _DEFAULTS.where(type_defaults.c.job_type > bindparam("after"))
    .order_by(type_defaults.c.job_type)
    .limit(bindparam("count"))
)

_NO_PAUSE = {"pause_time": None, "pause_actor": "", "pause_reason": ""}


class SqlQueueSettings:
    """See `queue_store.QueueSettings`. Each change is one transaction that locks the feed."""

    def __init__(
        self,
        connections: StoreConnections,
        dialect: Dialect,
        tuning: Tuning = Tuning(),
    ) -> None:
        self._scanned_keys, self._marked_keys = tuning.scanned_keys, tuning.marked_keys
        self._connections = connections
        self._dialect = dialect

    @runs_to_completion
    async def pause_type(self, job_type: str, *, actor: str, reason: str) -> Pause:
        async with self._connections.writing_under_lock() as connection:
            one = select(paused_types).where(paused_types.c.job_type == job_type)
            found = (await connection.execute(one)).first()
            if found is not None:
                return Pause(*found[1:])
            await _check_room(connection, paused_types, "paused_job_types", MAX_PAUSED_JOB_TYPES)
            values = await self._pause(connection, actor, reason)
            await connection.execute(insert(paused_types).values(job_type=job_type, **values))
            await connection.execute(_RAISE_VERSION)
            return Pause(*values.values())

    @runs_to_completion
    async def resume_type(self, job_type: str) -> bool:
        async with self._connections.writing_under_lock() as connection:
            one = delete(paused_types).where(paused_types.c.job_type == job_type)
            resumed = (await connection.execute(one)).rowcount > 0
            if resumed:
                await connection.execute(_RAISE_VERSION)
            return resumed

    async def set_limit(self, name: str, max_running: int | None) -> Limit:
        await self._mark_rest(name, await self._set_limit(name, max_running))
        return await self._limit(name)

    @runs_to_completion
    async def _set_limit(self, name: str, max_running: int | None) -> str | None:
        async with self._connections.writing_under_lock() as connection:
            before = await _rule(connection, name)
            if max_running != before.max_running:
                await _write_rule(connection, before, max_running=max_running)
                await connection.execute(_RAISE_VERSION)
            return await self._mark_first(connection, name)

    async def pause_key(self, name: str, *, actor: str, reason: str) -> Limit:
        await self._pause_key(name, actor, reason)
        return await self._limit(name)

    @runs_to_completion
    async def _pause_key(self, name: str, actor: str, reason: str) -> None:
        async with self._connections.writing_under_lock() as connection:
            before = await _rule(connection, name)
            if before.pause is None:
                pause = await self._pause(connection, actor, reason)
                await _write_rule(connection, before, **pause)
                await connection.execute(_RAISE_VERSION)

    async def resume_key(self, name: str) -> bool:
        resumed, last = await self._resume_key(name)
        await self._mark_rest(name, last)
        return resumed

    @runs_to_completion
    async def _resume_key(self, name: str) -> tuple[bool, str | None]:
        async with self._connections.writing_under_lock() as connection:
            before = await _rule(connection, name)
            if before.pause is not None:
                await _write_rule(connection, before, **_NO_PAUSE)
                await connection.execute(_RAISE_VERSION)
            return before.pause is not None, await self._mark_first(connection, name)

    async def _mark_first(self, connection: AsyncConnection, name: str) -> str | None:
        """Do what `_mark_rest` does for the first keys, in the transaction of the change.

        So a change is complete whatever happens next, unless its name has very many keys.

        Returns:
            The key after which there may be more, or None.
        """
        if ":" in name:
            await connection.execute(_MARK, {"found": [name]})
            return None
        count = self._marked_keys
        keys = (await connection.execute(KEYS, {"name": name, "after": "", "count": count})).all()
        if found := [key for _, _, key in keys if key is not None]:
            await connection.execute(_MARK, {"found": found})
        last, number, _ = keys[0]
        return last if number == count else None

    async def _mark_rest(self, name: str, after: str | None) -> None:
        """Have somebody look if blocked jobs of a name's keys after this one may start now.

        They are looked at without a lock, for a name may have many that have no blocked jobs. A job
        that is blocked later is so by what was set. The feed is locked to mark a few at a time.

        If nothing has changed too: an earlier call may have failed before its last keys. Where
        nobody repeats it, the sweeper finds them.
        """
        count = self._scanned_keys
        while after is not None:
            bound = {"name": name, "after": after, "count": count}
            keys = await self._connections.read(KEYS, bound)
            found = [key for _, _, key in keys if key is not None]
            for first in range(0, len(found), self._marked_keys):
                await self._mark_blocked(found[first : first + self._marked_keys])
            last, number, _ = keys[0]
            after = last if number == count else None

    @runs_to_completion
    async def _mark_blocked(self, found: Sequence[str]) -> None:
        async with self._connections.writing_under_lock() as connection:
            await connection.execute(_MARK, {"found": found})

    async def limits(self, *, after: str, limit: int) -> list[Limit]:
        async def read(connection: AsyncConnection) -> list[Limit]:
            bound = {"after": after, "count": limit}
            names = (await connection.scalars(_NAMES, bound)).all()
            if not names:
                return []
            bounds = {
                "first": names[0],
                "last": names[-1],
                "keys": max(1, MAX_COUNTED_KEYS // len(names)),
            }
            return [_limit(row) for row in await connection.execute(LIMITS, bounds)]

        return await self._connections.read_list(read)

    @runs_to_completion
    async def set_type_defaults(self, job_type: str, defaults: TypeDefaults) -> None:
        async with self._connections.writing_under_lock() as connection:
            one = type_defaults.c.job_type == job_type
            found = (await connection.execute(_DEFAULTS.where(one))).first()
            if defaults == (NO_DEFAULTS if found is None else _type_defaults(found)[1]):
                return
            if found is None:
                await _check_room(
                    connection, type_defaults, "defaulted_job_types", MAX_DEFAULTED_JOB_TYPES
                )
            await connection.execute(delete(type_defaults).where(one))
            if defaults != NO_DEFAULTS:
                values = {"job_type": job_type, **asdict(defaults)}
                await connection.execute(insert(type_defaults).values(**values))
            await connection.execute(_RAISE_VERSION)

    async def type_defaults(self, *, after: str, limit: int) -> list[tuple[str, TypeDefaults]]:
        rows = await self._connections.read(_DEFAULTS_PAGE, {"after": after, "count": limit})
        return [_type_defaults(row) for row in rows]

    async def watch_key(self) -> bytes:
        ((key,),) = await self._connections.read(_WATCH_KEY, {})
        return bytes.fromhex(key)

    @runs_to_completion
    async def renew_watch_key(self) -> None:
        async with self._connections.writing_under_lock() as connection:
            await connection.execute(update(feed).values(watch_key=os.urandom(32).hex()))
            await connection.execute(_RAISE_VERSION)

    async def _limit(self, name: str) -> Limit:
        """Return a limit as it is now. The counters of its keys are read without the lock."""
        bounds = {"first": name, "last": name, "keys": MAX_COUNTED_KEYS}
        rows = await self._connections.read(LIMITS, bounds)
        return _limit(rows[0]) if rows else Limit(name)

    async def _pause(self, connection: AsyncConnection, actor: str, reason: str) -> dict[str, Any]:
        time = await self._dialect.now(connection)
        return {"pause_time": time, "pause_actor": actor, "pause_reason": reason}


async def read_config(connection: AsyncConnection) -> Config:
    """Return what operators have set, on a connection that reads one snapshot."""
    version = await connection.scalar(select(feed.c.config_version))
    paused = await connection.scalars(select(paused_types.c.job_type))
    defaults = await connection.execute(_DEFAULTS)
    return Config(version or 0, frozenset(paused), dict(map(_type_defaults, defaults)))


def _type_defaults(row: Any) -> tuple[str, TypeDefaults]:
    job_type, *values = row
    return job_type, TypeDefaults(**dict(zip(TypeDefaults.__struct_fields__, values, strict=True)))


async def _rule(connection: AsyncConnection, name: str) -> Limit:
    """Return the limit and the pause of a name, without the counts."""
    one = select(limit_rules).where(limit_rules.c.name == name)
    found = (await connection.execute(one)).first()
    return Limit(name) if found is None else _limit((*found, 0, 0))


def _limit(row: Any) -> Limit:
    name, max_running, time, actor, reason, running, blocked = row
    pause = None if time is None else Pause(Instant(time), actor, reason)
    return Limit(name, max_running, pause, int(running), int(blocked))


async def _write_rule(connection: AsyncConnection, before: Limit, **changes: Any) -> None:
    """Write a rule with changes. It has a row while it has a limit or a pause."""
    one = limit_rules.c.name == before.name
    if before.max_running is None and before.pause is None:
        await _check_room(connection, limit_rules, "concurrency_limits", MAX_CONCURRENCY_LIMITS)
        values = {"name": before.name, "max_running": None, **_NO_PAUSE, **changes}
        await connection.execute(insert(limit_rules).values(**values))
    else:
        await connection.execute(update(limit_rules).where(one).values(**changes))
        empty = limit_rules.c.max_running.is_(None), limit_rules.c.pause_time.is_(None)
        await connection.execute(delete(limit_rules).where(one, *empty))


async def _check_room(connection: AsyncConnection, table: Table, limit: str, most: int) -> None:
    count = await connection.scalar(select(func.count()).select_from(table))
    if (count or 0) >= most:
        raise LimitExceeded(limit, most)
