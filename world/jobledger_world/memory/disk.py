"""The database of a world in memory, and what can go wrong on the way to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from jobledger_server.domain.job import Instant
from jobledger_server.domain.limits import COMMAND_SECONDS
from jobledger_server.embedded import OpenedStore
from jobledger_server.store import StoreUnavailable
from jobledger_server.tuning import Tuning
from jobledger_world.backup import Backup
from jobledger_world.chance import Chance
from jobledger_world.database_faults import DatabaseFaults
from jobledger_world.loop import Node, WorldLoop
from jobledger_world.machine import Machine
from jobledger_world.memory.link import Database
from jobledger_world.memory.locks import Locks
from jobledger_world.memory.store import MemoryStore
from jobledger_world.memory.tables import Tables

Result = TypeVar("Result")

STALE = 0.5
"""The part of lost connections that were lost before they were used."""


class MemoryDisk(DatabaseFaults):
    """A database in memory that several servers share, with the locks of PostgreSQL.

    Args:
        loop: The world's loop.
        chance: Decides latencies and faults.
        machine: Has the database's clock.

    Attributes:
        tables: What is committed.
    """

    def __init__(self, loop: WorldLoop, chance: Chance, machine: Machine) -> None:
        super().__init__(loop, chance)
        self._machine = machine
        self.tables = Tables(chance.of("disk"))
        self._locks = Locks(self.counts)

    def _clock(self) -> Instant:
        return Instant(self._machine.time_ns() // 1000)

    @asynccontextmanager
    async def open(self, node: Node, tuning: Tuning = Tuning()) -> AsyncIterator[OpenedStore]:
        """Give a server its store."""
        database = Database(self.tables, self._locks, self._clock, FaultyLink(self, node))
        try:
            yield OpenedStore(MemoryStore(database, tuning))
        finally:
            self.crash(node)

    def crash(self, node: Node) -> None:
        """Roll back the transactions of a server that is gone."""
        for session in self._locks.sessions_of(node):
            self._locks.end(session)

    def backup(self) -> Backup:
        """Copy what is committed."""
        saved = self.tables.copy()

        def restore() -> None:
            identity = self.tables.identity + 1
            self.tables = saved.copy()
            self.tables.identity = identity

        return Backup(restore)

    def held(self) -> list[str]:
        """Return what is locked, and which transactions are open."""
        return list(self._locks.held())

    def record_commit(self, node: Node | None) -> None:
        """Add a commit to the trace."""
        self._loop.record("commit", node.name if node else "", self.tables.head.seq)

    def is_stale(self) -> bool:
        """Return whether a connection that failed had been lost before."""
        return self._faults.random() < STALE


class FaultyLink:
    """The way from a server to the database; see `link.Link`."""

    def __init__(self, disk: MemoryDisk, node: Node) -> None:
        self.node: Node | None = node
        self._disk = disk

    async def request(self) -> float:
        disk = self._disk
        disk.counts["statements"] += 1
        rest = await self._reach()
        if disk.is_cut(self.node) or disk.happens("failed", disk.fails):
            raise StoreUnavailable("the connection was lost", stale=disk.is_stale())
        return rest

    async def answer(self, seconds: float) -> None:
        if seconds:
            await asyncio.sleep(seconds)
        if self._disk.is_cut(self.node):
            raise StoreUnavailable("the connection was lost", stale=True)

    async def commit(self, apply: Callable[[], Result]) -> Result:
        disk = self._disk
        rest = await self._reach()
        if disk.is_cut(self.node) or disk.happens("rejected", disk.rejects):
            raise StoreUnavailable("the commit failed", kind="io")
        result = apply()
        disk.counts["commits"] += 1
        disk.record_commit(self.node)
        if rest:
            await asyncio.sleep(rest)
        if disk.is_cut(self.node) or disk.happens("lost", disk.loses):
            raise StoreUnavailable("the connection was lost")
        return result

    async def _reach(self) -> float:
        """Wait until a statement is there; return how long its answer takes."""
        there, back = self._disk.times()
        if there > COMMAND_SECONDS:
            await asyncio.sleep(COMMAND_SECONDS)
            raise StoreUnavailable("no answer in time", kind="timeout")
        if there:
            await asyncio.sleep(there)
        return back
