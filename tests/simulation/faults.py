"""Breaks the world by a plan, and repairs it."""

import asyncio
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from jobledger_server.ledger.outages import MAX_GAP
from jobledger_world.network.connection import Connection
from jobledger_world.processes import Server
from jobledger_world.world import World
from tests.checker import history as histories
from tests.checker.clock import Jump
from tests.simulation.plan import Fault, Kind

PARTS: Mapping[Kind, tuple[str, str, float]] = {
    "slow network": ("network", "slow", 0.2),
    "duplicates": ("network", "duplicates", 0.2),
    "lost answers": ("network", "lost_answers", 0.1),
    "database slow": ("disk", "slow", 0.2),
    "database fail": ("disk", "fails", 0.3),
    "database reject": ("disk", "rejects", 0.3),
    "database lost": ("disk", "loses", 0.3),
}
"""Of what a part goes wrong for a while, by the attribute of the world's network or disk."""

BLOCKED: Mapping[Kind, Mapping[str, bool]] = {
    "black hole": {},
    "half-open to server": {"to_client": False},
    "half-open to client": {"to_server": False},
}
"""What of a connection stays open."""

JUMPS = (-5.0, -1.0, 0.5, 3.0, 30.0)
"""Seconds by which the clock is set."""

OUTAGE_SECONDS = MAX_GAP / 1e6 + 0.5
"""A stall of the database that lasts for longer is an outage to each server."""

LATENCY_MICROS = 500_000
"""More than a statement takes without a fault."""


class Nemesis:
    """Injects faults, and notes them down in a history.

    Args:
        world: What it breaks.
        history: Gets what was broken when.
    """

    def __init__(self, world: World, history: histories.History) -> None:
        self._world = world
        self._history = history
        self._parts: dict[tuple[int, str], list[float]] = {}
        self._stalled_until = 0

    async def run(self, faults: Sequence[Fault], seconds: float) -> None:
        """Inject each fault at its time; return after so many seconds, with all of them over."""
        began = self._world.loop.time()
        async with asyncio.TaskGroup() as striking:
            striking.create_task(asyncio.sleep(seconds))
            for fault in faults:
                striking.create_task(self._strike(fault, began + fault.at))

    async def _strike(self, fault: Fault, at: float) -> None:
        world = self._world
        await asyncio.sleep(at - world.loop.time())
        world.loop.record("fault", fault.kind, fault.lasts)
        everywhere = frozenset(range(len(world.servers)))
        noted = histories.Fault(fault.kind, world.loop.time(), replicas=everywhere, alone=False)
        self._history.faults.append(noted)
        await self._inflict(fault.kind, fault.lasts, random.Random(fault.seed))
        noted.ended = noted.recovers_from = world.loop.time()

    async def _inflict(self, kind: Kind, lasts: float, rng: random.Random) -> None:
        world = self._world
        server = rng.choice(list(world.servers.values()))
        if kind in PARTS:
            owner, name, part = PARTS[kind]
            await self._share(getattr(world, owner), name, part, lasts)
            return
        if kind in BLOCKED:
            connections = self._some(server, rng, 0.6)
            await self._block(connections, BLOCKED[kind], lasts, rng)
            return
        match kind:
            case "kill":
                server.kill()
                await asyncio.sleep(lasts)
                server.boot()
            case "restart":
                await self._restart(server, lasts)
            case "freeze":
                server.freeze()
                await asyncio.sleep(lasts)
                server.thaw()
            case "reset":
                for connection in self._some(server, rng, 0.7):
                    connection.reset()
            case "refused" | "unanswered":
                for connection in self._some(server, rng, 0.5):
                    connection.reset()
                world.network.closed[server.target] = kind
                await asyncio.sleep(lasts)
                world.network.closed.pop(server.target, None)
            case "database stall":
                world.disk.stall(lasts)
                began = time.time_ns() // 1000
                # What waits already, for the end of another stall, is answered then.
                answered = self._stalled_until
                self._stalled_until = max(answered, began + int(lasts * 1e6))
                await asyncio.sleep(lasts)
                began, ended = max(began, answered), time.time_ns() // 1000
                if ended - began > OUTAGE_SECONDS * 1e6:
                    # What a transaction has read of the clock before may be written after it.
                    self._history.outages.append((began + LATENCY_MICROS, ended))
            case "database cut":
                node = server.node
                world.disk.cut[node] = None
                await asyncio.sleep(lasts)
                world.disk.cut.pop(node, None)
            case "clock":
                before = time.time_ns() // 1000
                world.machine.jump += rng.choice(JUMPS)
                self._history.jumps.append(Jump(before, time.time_ns() // 1000))
            case _:
                raise AssertionError(kind)

    async def _restart(self, server: Server, lasts: float) -> None:
        """Stop a server by SIGTERM, and kill it if that takes too long."""
        try:
            async with asyncio.timeout(max(1.0, lasts)):
                await server.stop()
        except TimeoutError:
            server.kill()
        server.boot()

    def _some(self, server: Server, rng: random.Random, part: float) -> list[Connection]:
        return [
            connection
            for connection in self._world.network.connections(server.target)
            if rng.random() < part
        ]

    async def _block(
        self,
        connections: Sequence[Connection],
        ways: Mapping[str, bool],
        lasts: float,
        rng: random.Random,
    ) -> None:
        """Let nothing through for a while; then what was sent arrives, or the connection breaks."""
        for connection in connections:
            connection.block(**ways)
        await asyncio.sleep(lasts)
        for connection in connections:
            if rng.random() < 0.6:
                connection.heal()
            else:
                connection.reset()

    async def _share(self, broken: Any, name: str, part: float, lasts: float) -> None:
        """Have a part of what happens fail for a while; of two at once the last one ends it."""
        with self._raised(broken, name, part):
            await asyncio.sleep(lasts)

    @contextmanager
    def _raised(self, broken: Any, name: str, part: float) -> Iterator[None]:
        parts = self._parts.setdefault((id(broken), name), [getattr(broken, name)])
        parts.append(part)
        setattr(broken, name, max(parts))
        try:
            yield
        finally:
            parts.remove(part)
            setattr(broken, name, max(parts))
