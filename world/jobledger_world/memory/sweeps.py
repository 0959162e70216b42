"""Deletes what is idle, and finds what was forgotten; see `store.Sweeps`.

Rows are looked at in one step, and those that are still idle are deleted in another one.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from jobledger_server.domain.job import Micros, Phase
from jobledger_server.domain.queues import FORGOTTEN_STARTS, QueueName
from jobledger_server.store import CountedLevel, Swept
from jobledger_world.memory.link import Database
from jobledger_world.memory.rows import with_key
from jobledger_world.memory.waiting import key_state

Key = TypeVar("Key")


class MemorySweeps:
    """See `store.Sweeps`."""

    def __init__(self, database: Database) -> None:
        self._database, self._tables = database, database.tables

    async def levels(self, *, after: tuple[str, int], limit: int) -> list[CountedLevel]:
        def read() -> list[CountedLevel]:
            names = sorted(name for name in self._tables.levels if name > after)[:limit]
            return [
                CountedLevel(*name, self._tables.levels[name].writes, self._is_idle_level(name))
                for name in names
            ]

        return await self._database.read(read)

    async def delete_levels(self, levels: Sequence[CountedLevel]) -> int:
        def is_idle(level: CountedLevel) -> bool:
            name = level.job_type, level.priority
            row = self._tables.levels.get(name)
            return row is not None and row.writes == level.writes and self._is_idle_level(name)

        return await self._delete(
            levels, is_idle, lambda each: self._tables.levels.pop((each.job_type, each.priority))
        )

    async def queues(self, *, after: QueueName | None, limit: int) -> Swept[QueueName]:
        queues = self._tables.queues

        def read() -> tuple[list[QueueName], list[QueueName]]:
            seen = sorted(each for each in queues if after is None or each > after)[:limit]
            return seen, [name for name in seen if self._is_idle_queue(name)]

        seen, idle = await self._database.read(read)
        deleted = await self._delete(idle, self._is_idle_queue, queues.pop)
        return Swept(seen[-1] if len(seen) == limit else None, deleted)

    async def keys(self, *, after: str, limit: int) -> Swept[str]:
        def read() -> tuple[list[str], list[str], list[str]]:
            seen = sorted(key for key in self._tables.keys if key > after)[:limit]
            forgotten = [key for key in seen if self._is_forgotten(key)]
            return seen, forgotten, [key for key in seen if self._is_idle_key(key)]

        seen, forgotten, idle = await self._database.read(read)
        await self._delete(forgotten, self._is_forgotten, self._mark)
        deleted = await self._delete(idle, self._is_idle_key, self._tables.keys.pop)
        return Swept(seen[-1] if len(seen) == limit else None, deleted)

    async def ended(self, age: Micros, *, limit: int) -> int:
        counts = self._tables.ended
        before = await self._database.read(self._database.clock) - age
        old = sorted((each for each in counts if each[1] < before), key=lambda each: each[1])
        return await self._delete(old[:limit], counts.__contains__, counts.pop)

    async def pollers(self) -> None:
        def write() -> None:
            now, pollers = self._database.clock(), self._tables.pollers
            for name in [name for name, until in pollers.items() if until < now]:
                del pollers[name]

        await self._database.write(write, lock=False)

    async def _delete(
        self, found: Sequence[Key], is_idle: Callable[[Key], bool], delete: Callable[[Key], object]
    ) -> int:
        """Delete or mark what is still idle while the feed is locked; return how many."""

        def write() -> int:
            idle = [each for each in found if is_idle(each)]
            for each in idle:
                delete(each)
            return len(idle)

        return await self._database.write(write) if found else 0

    def _mark(self, key: str) -> None:
        self._tables.keys[key].recheck = True

    def _is_idle_level(self, name: tuple[str, int]) -> bool:
        return not any(self._tables.levels[name].phases)

    def _is_idle_queue(self, name: QueueName) -> bool:
        queue = self._tables.queues.get(name)
        if queue is None or any(queue.phases):
            return False
        # Its tenant must not gain more by the deletion.
        level = self._tables.levels.get((name.job_type, name.priority))
        if level is None or not any(level.phases):
            return True
        return queue.vtime <= level.vtime + FORGOTTEN_STARTS

    def _is_idle_key(self, key: str) -> bool:
        counts = self._tables.keys.get(key)
        return counts is not None and not (counts.running or counts.blocked or counts.recheck)

    def _is_forgotten(self, key: str) -> bool:
        """Whether its blocked jobs wait for nothing: a server died before it marked the key."""
        counts = self._tables.keys.get(key)
        if counts is None or not counts.blocked or counts.running or counts.recheck:
            return False
        paused = key_state(self._tables, key).paused
        return not paused and not self._tables.members(with_key(key, Phase.READY))
