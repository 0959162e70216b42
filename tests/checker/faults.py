"""Breaks things on purpose, by a schedule that its seed decides, and repairs them again."""

import asyncio
import itertools
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import asyncpg

from tests.checker.history import Fault, History
from tests.support.postgres_server import PostgresServer
from tests.support.proxy import Proxy
from tests.support.server_process import ServerProcess

KINDS = (
    "kill -9",
    "SIGSTOP",
    "LISTEN cut",
    "PostgreSQL restart",
    "delay",
    "cut",
    "half-close",
    "black hole",
)

OF_POSTGRESQL = frozenset({"LISTEN cut", "PostgreSQL restart"})

LASTING = frozenset({"SIGSTOP", "PostgreSQL restart", "delay", "black hole"})
"""Kinds that are over at some time; one recovers from the others from their beginning."""

TWO_AT_ONCE = 0.25

CUT_LISTENERS = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name = 'jobledger notifications' AND datname = current_database()
"""


@dataclass(frozen=True, slots=True)
class Plant:
    """What can be broken: the replicas, what stands before each, and their database.

    On SQLite there is one replica, and no `postgres`.
    """

    postgres: PostgresServer | None
    database: str
    servers: Sequence[ServerProcess]
    proxies: Sequence[Proxy]


@dataclass
class Nemesis:
    """Injects all kinds of failures in a random order, again and again.

    `longest` is how many seconds a lasting failure may last, `calm` how many there are
    between two. `look` is called after each of them. `kinds` are those that are injected.
    """

    plant: Plant
    history: History
    rng: random.Random
    longest: float
    calm: tuple[float, float]
    look: Callable[[], Awaitable[None]]
    kinds: Sequence[str] = KINDS

    async def run(self, until: float) -> None:
        """Break and repair until a time, every kind at least once; at the end everything works."""
        postgres = self.plant.postgres is not None
        kinds_here = [kind for kind in self.kinds if postgres or kind not in OF_POSTGRESQL]
        several = len(self.plant.servers) > 1
        for number in itertools.count():
            deck = self.rng.sample(kinds_here, len(kinds_here))
            while deck:
                if number and time.monotonic() >= until:
                    return
                await asyncio.sleep(self.rng.uniform(*self.calm))
                # Each kind alone once, so that its recovery can be measured.
                two = several and number and len(deck) > 1 and self.rng.random() < TWO_AT_ONCE
                kinds = [deck.pop() for _ in range(2 if two else 1)]
                replicas = self.rng.sample(range(len(self.plant.servers)), len(kinds))
                async with asyncio.TaskGroup() as breaking:
                    for kind, replica in zip(kinds, replicas, strict=True):
                        breaking.create_task(self._inflict(kind, replica, alone=not two))

    async def _inflict(self, kind: str, replica: int, *, alone: bool) -> None:
        everywhere = kind in OF_POSTGRESQL
        every = range(len(self.plant.servers))
        replicas = frozenset(every if everywhere else (replica,))
        fault = Fault(kind, time.monotonic(), replicas=replicas, alone=alone)
        self.history.faults.append(fault)
        async with self._broken(kind, replica):
            if kind in LASTING:
                await asyncio.sleep(self.rng.uniform(0.5, self.longest))
        fault.ended = time.monotonic()
        fault.recovers_from = fault.ended if kind in LASTING else fault.began
        await self.look()

    def _broken(self, kind: str, replica: int) -> AbstractAsyncContextManager[None]:
        server, proxy = self.plant.servers[replica], self.plant.proxies[replica]
        match kind:
            case "kill -9":
                return _killed(server, self.rng.uniform(0.0, 1.0))
            case "SIGSTOP":
                return _stopped(server)
            case "LISTEN cut":
                return _listeners_cut(self.plant.database)
            case "PostgreSQL restart":
                assert self.plant.postgres is not None
                return _restarted(self.plant.postgres, crash=self.rng.random() < 0.5)
            case "delay":
                return _delayed(proxy, self.rng.uniform(0.02, 0.3))
            case "cut":
                proxy.cut()
            case "half-close":
                proxy.half_close(self.rng)
            case "black hole":
                return _swallowed(proxy)
            case _:
                raise AssertionError(kind)
        return _nothing()


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def _killed(server: ServerProcess, away: float) -> AsyncIterator[None]:
    await asyncio.to_thread(server.kill)
    yield
    await asyncio.sleep(away)
    await start_again(server)


async def start_again(server: ServerProcess) -> None:
    """Start a server, and again if it finds no database: that may be broken too."""
    deadline = time.monotonic() + 30
    while True:
        try:
            await asyncio.to_thread(server.start)
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
        else:
            return


@asynccontextmanager
async def _stopped(server: ServerProcess) -> AsyncIterator[None]:
    server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal(signal.SIGCONT)


@asynccontextmanager
async def _listeners_cut(database: str) -> AsyncIterator[None]:
    try:
        connection = await asyncpg.connect(database, timeout=5)
        try:
            await connection.fetchval(CUT_LISTENERS)
        finally:
            connection.terminate()
    except (OSError, asyncpg.PostgresError):
        pass  # PostgreSQL is unavailable, and so are they
    yield


@asynccontextmanager
async def _restarted(postgres: PostgresServer, *, crash: bool) -> AsyncIterator[None]:
    await asyncio.to_thread(postgres.kill if crash else postgres.stop)
    yield
    await asyncio.to_thread(postgres.start)


@asynccontextmanager
async def _delayed(proxy: Proxy, seconds: float) -> AsyncIterator[None]:
    proxy.delay = seconds
    try:
        yield
    finally:
        proxy.delay = 0.0


@asynccontextmanager
async def _swallowed(proxy: Proxy) -> AsyncIterator[None]:
    proxy.swallow()
    try:
        yield
    finally:
        proxy.release()
