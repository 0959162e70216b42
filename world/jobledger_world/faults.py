"""What can break in a world. Each fault is repaired after a while by what has caused it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Final, Literal, TypeAlias

from jobledger_world.network.network import Closed
from jobledger_world.processes import Cluster, Process

Kind: TypeAlias = Literal["workers", "servers", "network", "database", "clock"]
Wait: TypeAlias = Callable[[], Awaitable[None]]
"""Returns when the fault has lasted long enough."""

Fault: TypeAlias = Callable[[Cluster, Random, Wait], Awaitable[None]]

CLOSED: Final[Sequence[Closed]] = "refused", "unanswered"
"""What becomes of new connections to a server."""

PARTS: Final = 0.02, 0.1, 0.5
"""The part of messages or statements that a fault concerns: one of these."""

STALL: Final = 0.1, 20.0
"""Seconds for which the database does not answer."""

JUMP: Final = 0.1, 600.0
"""Seconds by which the clock is set forward."""


async def crash(process: Process, _random: Random, wait: Wait) -> None:
    process.kill()
    await wait()
    process.boot()


async def freeze(process: Process, _random: Random, wait: Wait) -> None:
    # A server may hold locks of the database meanwhile.
    process.world.problems.database_breaks = True
    process.freeze()
    await wait()
    process.thaw()


async def restart(process: Process, _random: Random, wait: Wait) -> None:
    await process.stop()
    await wait()
    process.boot()


async def disconnect(process: Process, _random: Random, _wait: Wait) -> None:
    process.cut()


async def unplug(process: Process, random: Random, wait: Wait) -> None:
    """Block its connections, in one direction or both, and each new one. Keepalive may find out."""
    ways = random.choice(((True, True), (True, False), (False, True)))
    network, node = process.world.network, process.node
    connections = network.connections(node=node)
    process.world.fault("block", process.node.name, "to server", ways[0], "to client", ways[1])
    for connection in connections:
        connection.block(to_server=ways[0], to_client=ways[1])
    network.closed[node] = "unanswered"
    await wait()
    process.world.fault("heal", process.node.name)
    network.closed.pop(node, None)
    for connection in connections:
        connection.heal()


async def shut(world: Cluster, random: Random, wait: Wait) -> None:
    """Reset a server's connections, and let nobody connect to it."""
    server, how = random.choice(list(world.servers.values())), random.choice(CLOSED)
    world.fault("close", server.name, how)
    for connection in world.network.connections(server.target):
        connection.reset()
    world.network.closed[server.target] = how
    await wait()
    world.fault("open", server.name)
    world.network.closed.pop(server.target, None)


async def lose_database(process: Process, _random: Random, wait: Wait) -> None:
    """Have a server not reach the database."""
    world, node = process.world, process.node
    world.problems.database_breaks = True
    world.fault("database unreachable for", node.name)
    world.disk.cut[node] = None
    await wait()
    world.fault("database reachable for", node.name)
    world.disk.cut.pop(node, None)


async def stall(world: Cluster, random: Random, _wait: Wait) -> None:
    seconds = random.uniform(*STALL)
    world.problems.database_breaks = True
    world.fault(f"database stalls for {seconds:.3f} s")
    world.disk.stall(seconds)


async def jump(world: Cluster, random: Random, _wait: Wait) -> None:
    seconds = random.uniform(*JUMP) * random.random() ** 3  # most are small
    world.fault(f"clock jumps by {seconds:.3f} s")
    world.machine.jump += seconds


async def _on_one(
    of: Literal["workers", "servers"],
    fault: Callable[[Process, Random, Wait], Awaitable[None]],
    world: Cluster,
    random: Random,
    wait: Wait,
) -> None:
    """Break one of these processes, if any runs."""
    running = [each for each in getattr(world, of).values() if each.runs]
    if running:
        await fault(random.choice(running), random, wait)


async def _some(
    of: Literal["network", "disk"], name: str, world: Cluster, random: Random, wait: Wait
) -> None:
    """Have some messages, statements or commits fail for a while."""
    part = random.choice(PARTS)
    if of == "disk":
        world.problems.database_breaks = True
    world.fault(f"{of}.{name} = {part}")
    setattr(getattr(world, of), name, part)
    await wait()
    world.fault(f"{of}.{name} = 0")
    setattr(getattr(world, of), name, 0.0)


FAULTS: Final[Mapping[Kind, Mapping[str, Fault]]] = {
    "workers": {
        f"worker {each.__name__}": partial(_on_one, "workers", each)
        for each in (crash, freeze, restart)
    },
    "servers": {
        f"server {each.__name__}": partial(_on_one, "servers", each)
        for each in (crash, freeze, restart)
    },
    "network": {
        "reset": partial(_on_one, "workers", disconnect),
        "block": partial(_on_one, "workers", unplug),
        "close": shut,
        **{
            f"network {name}": partial(_some, "network", name)
            for name in ("slow", "duplicates", "lost_answers")
        },
    },
    "database": {
        "stall": stall,
        "unreachable": partial(_on_one, "servers", lose_database),
        **{
            f"database {name}": partial(_some, "disk", name)
            for name in ("slow", "fails", "rejects", "loses")
        },
    },
    "clock": {"jump": jump},
}
"""By what is concerned, and by name: each has a stream of chance of its own."""
