"""Pauses, limits, defaults and the key of watch tokens. See `queue_store.QueueSettings`."""

from collections.abc import Collection

from jobledger_server.domain.errors import LimitExceeded
from jobledger_server.domain.limits import (
    MAX_CONCURRENCY_LIMITS,
    MAX_COUNTED_KEYS,
    MAX_DEFAULTED_JOB_TYPES,
    MAX_PAUSED_JOB_TYPES,
)
from jobledger_server.domain.queues import rule_name
from jobledger_server.domain.type_defaults import NO_DEFAULTS, TypeDefaults
from jobledger_server.domain.waiting import Pause
from jobledger_server.queue_store import Limit
from jobledger_world.memory.link import Database
from jobledger_world.memory.tables import Rule


class MemoryQueueSettings:
    """See `queue_store.QueueSettings`. Each change is one transaction that locks the feed."""

    def __init__(self, database: Database) -> None:
        self._database, self._tables = database, database.tables

    async def pause_type(self, job_type: str, *, actor: str, reason: str) -> Pause:
        def write() -> Pause:
            paused = self._tables.paused_types
            if job_type not in paused:
                _check_room(paused, "paused_job_types", MAX_PAUSED_JOB_TYPES)
                paused[job_type] = Pause(self._database.clock(), actor, reason)
                self._tables.config_version += 1
            return paused[job_type]

        return await self._database.write(write)

    async def resume_type(self, job_type: str) -> bool:
        def write() -> bool:
            resumed = self._tables.paused_types.pop(job_type, None) is not None
            self._tables.config_version += resumed
            return resumed

        return await self._database.write(write)

    async def set_limit(self, name: str, max_running: int | None) -> Limit:
        def write() -> None:
            rule = self._tables.rules.get(name, Rule())
            if rule.max_running != max_running:
                self._set(name, Rule(max_running, rule.pause))
            self._mark(name)

        await self._database.write(write)
        return await self._database.read(lambda: self._limit(name))

    async def pause_key(self, name: str, *, actor: str, reason: str) -> Limit:
        def write() -> None:
            rule = self._tables.rules.get(name, Rule())
            if rule.pause is None:
                pause = Pause(self._database.clock(), actor, reason)
                self._set(name, Rule(rule.max_running, pause))

        await self._database.write(write)
        return await self._database.read(lambda: self._limit(name))

    async def resume_key(self, name: str) -> bool:
        def write() -> bool:
            rule = self._tables.rules.get(name, Rule())
            if rule.pause is not None:
                self._set(name, Rule(rule.max_running))
            self._mark(name)
            return rule.pause is not None

        return await self._database.write(write)

    async def limits(self, *, after: str, limit: int) -> list[Limit]:
        def read() -> list[Limit]:
            names = sorted(name for name in self._tables.rules if name > after)
            some = names[:limit]
            return [self._limit(name, MAX_COUNTED_KEYS // len(some)) for name in some]

        return await self._database.read(read)

    async def set_type_defaults(self, job_type: str, defaults: TypeDefaults) -> None:
        def write() -> None:
            found = self._tables.defaults
            if found.get(job_type, NO_DEFAULTS) == defaults:
                return
            if job_type not in found:
                _check_room(found, "defaulted_job_types", MAX_DEFAULTED_JOB_TYPES)
            found[job_type] = defaults
            if defaults == NO_DEFAULTS:
                del found[job_type]
            self._tables.config_version += 1

        await self._database.write(write)

    async def type_defaults(self, *, after: str, limit: int) -> list[tuple[str, TypeDefaults]]:
        found = self._tables.defaults
        return await self._database.read(
            lambda: [(name, found[name]) for name in sorted(found) if name > after][:limit]
        )

    async def watch_key(self) -> bytes:
        return await self._database.read(lambda: self._tables.watch_key)

    async def renew_watch_key(self) -> None:
        def write() -> None:
            self._tables.watch_key = self._tables.random.randbytes(32)
            self._tables.config_version += 1

        await self._database.write(write)

    def _set(self, name: str, rule: Rule) -> None:
        """Replace a rule. It is stored while it has a limit or a pause."""
        if name not in self._tables.rules:
            _check_room(self._tables.rules, "concurrency_limits", MAX_CONCURRENCY_LIMITS)
        self._tables.rules[name] = rule
        if rule == Rule():
            del self._tables.rules[name]
        self._tables.config_version += 1

    def _mark(self, name: str) -> None:
        """Have somebody look if blocked jobs of a name's keys may start now."""
        for key, counts in self._tables.keys.items():
            own = key == name if ":" in name else rule_name(key) == name
            if own and counts.blocked:
                counts.recheck = True

    def _limit(self, name: str, keys: int = MAX_COUNTED_KEYS) -> Limit:
        rule = self._tables.rules.get(name, Rule())
        if name not in self._tables.rules:
            return Limit(name)
        own = sorted(key for key in self._tables.keys if name in (key, rule_name(key)))
        counted = [self._tables.keys[key] for key in own[: max(1, keys)]]
        running, blocked = sum(key.running for key in counted), sum(key.blocked for key in counted)
        return Limit(name, rule.max_running, rule.pause, running, blocked)


def _check_room(rows: Collection[str], limit: str, most: int) -> None:
    if len(rows) >= most:
        raise LimitExceeded(limit, most)
