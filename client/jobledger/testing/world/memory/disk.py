"""The database of a world in memory, and what can go wrong on the way to it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from jobledger.testing.world.chance import Chance
from jobledger.testing.world.loop import Node, WorldLoop
from jobledger.testing.world.machine import Machine
from jobledger.testing.world.memory.link import Database
from jobledger.testing.world.memory.locks import Locks
from jobledger.testing.world.memory.store import MemoryStore
from jobledger.testing.world.memory.tables import Tables
from jobledger_server.app import OpenedStore
from jobledger_server.domain.job import Instant
from jobledger_server.sql.postgresql.postgresql_engines import COMMAND_SECONDS
from jobledger_server.store import StoreUnavailable
from jobledger_server.tuning import Tuning

Result = TypeVar("Result")

SLOW_SECONDS = (0.005, 0.5)
"""What a slow statement takes."""

EARLY = 0.5
"""The part of statements that take their time on the way to the database."""

STALE = 0.5
"""The part of lost connections that were lost before they were used."""


class MemoryDisk:
    """A database in memory that several servers share, with the locks of PostgreSQL.

    Args:
        loop: The world's loop.
        chance: Decides latencies and faults.
        machine: Has the database's clock.

    Attributes:
        latency: Seconds that a statement takes, from and to.
        slow: The part of statements that take SLOW_SECONDS, from 0 to 1.
        fails: The part of statements that fail.
        rejects: The part of commits that fail, and change nothing.
        loses: The part of commits that are done, and reported as failed.
        cut: The servers that do not reach the database.
        counts: How often what happened.
    """

    def __init__(self, loop: WorldLoop, chance: Chance, machine: Machine) -> None:
        self.latency = (0.0002, 0.002)
        self.slow = self.fails = self.rejects = self.loses = 0.0
        self.cut: dict[Node, None] = {}
        self.counts: Counter[str] = Counter()
        self._loop, self._machine = loop, machine
        self._times, self._faults = chance.of("disk latency"), chance.of("disk faults")
        self._stalled_until = 0.0
        self._tables = Tables(chance.of("disk"))
        self._locks = Locks(self.counts)

    def _clock(self) -> Instant:
        return Instant(self._machine.time_ns() // 1000)

    @asynccontextmanager
    async def open(self, node: Node, tuning: Tuning = Tuning()) -> AsyncIterator[OpenedStore]:
        """Give a server its store."""
        database = Database(self._tables, self._locks, self._clock, FaultyLink(self, node))
        try:
            yield OpenedStore(MemoryStore(database, tuning))
        finally:
            self.crash(node)

    def stall(self, seconds: float) -> None:
        """Have the database answer nobody for so long."""
        self._stalled_until = max(self._stalled_until, self._loop.time() + seconds)

    def crash(self, node: Node) -> None:
        """Roll back the transactions of a server that is gone."""
        for session in self._locks.sessions_of(node):
            self._locks.end(session)

    def held(self) -> list[str]:
        """Return what is locked, and which transactions are open."""
        return list(self._locks.held())

    def close(self) -> None:
        """Do nothing: there is nothing outside of memory."""

    def times(self) -> tuple[float, float]:
        """Return how long a statement that begins now takes on its way there, and back."""
        seconds = self._times.uniform(*self.latency)
        if self.slow and self._times.random() < self.slow:
            self.counts["slow"] += 1
            seconds = self._times.uniform(*SLOW_SECONDS)
        stalled = max(0.0, self._stalled_until - self._loop.time())
        # One of both, so that an answer may be old, and a statement takes a step of the loop.
        return (stalled + seconds, 0.0) if self._times.random() < EARLY else (stalled, seconds)

    def record_commit(self, node: Node | None) -> None:
        """Add a commit to the trace."""
        self._loop.record("commit", node.name if node else "", self._tables.head.seq)

    def happens(self, fault: str, part: float) -> bool:
        """Return whether a fault happens now, and count it."""
        happens = part > 0 and self._faults.random() < part
        self.counts[fault] += happens
        return happens

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
        if self.node in disk.cut or disk.happens("failed", disk.fails):
            raise StoreUnavailable("the connection was lost", stale=disk.is_stale())
        return rest

    async def answer(self, seconds: float) -> None:
        if seconds:
            await asyncio.sleep(seconds)
        if self.node in self._disk.cut:
            raise StoreUnavailable("the connection was lost", stale=True)

    async def commit(self, apply: Callable[[], Result]) -> Result:
        disk = self._disk
        rest = await self._reach()
        if self.node in disk.cut or disk.happens("rejected", disk.rejects):
            raise StoreUnavailable("the commit failed", kind="io")
        result = apply()
        disk.counts["commits"] += 1
        disk.record_commit(self.node)
        if rest:
            await asyncio.sleep(rest)
        if self.node in disk.cut or disk.happens("lost", disk.loses):
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
