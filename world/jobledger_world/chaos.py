"""Faults at times that a seed decides, while a test goes on."""

import asyncio
import math
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from random import Random
from typing import Final

from jobledger.core.retry import wait_at_most
from jobledger_world.faults import FAULTS, Fault, Kind
from jobledger_world.processes import Cluster

SECONDS_BETWEEN: Final = 3.0, 120.0
"""Between two faults of one name on average: the seed decides whether often or rarely."""

LEFT_OUT: Final = 0.6
"""The part of runs without faults of one name: one may hide what another would show."""

LASTS: Final = 0.1, 60.0
"""How many seconds a fault lasts: most last shortly."""


@asynccontextmanager
async def chaos(
    world: Cluster, number: int, kinds: Collection[Kind], seconds: float
) -> AsyncIterator[None]:
    """Break things during the block, again and again. At its end everything works again.

    Args:
        world: The world.
        number: Of the chaos in this run, which has a chance of its own.
        kinds: What breaks.
        seconds: How long it lasts at most.
    """
    until, over = world.loop.time() + seconds, asyncio.Event()

    def goes_on() -> bool:
        return not over.is_set() and world.loop.time() < until

    async def repeat(name: str, fault: Fault) -> None:
        random = world.chance.of(f"chaos {number} {name}")
        if random.random() < LEFT_OUT:
            return
        mean = _between(random, *SECONDS_BETWEEN)
        while goes_on():
            await wait_at_most(random.expovariate(1 / mean), over)
            if goes_on():
                await fault(world, random, lambda: wait_at_most(_between(random, *LASTS), over))

    tasks = [
        asyncio.create_task(repeat(name, fault), name=f"chaos {name}")
        for kind in kinds
        for name, fault in FAULTS[kind].items()
    ]
    try:
        yield
    finally:
        over.set()  # each repairs what it has broken
        await asyncio.gather(*tasks)
        world.fault("chaos ends")


def _between(random: Random, least: float, most: float) -> float:
    """Return a number between these, of which each order of magnitude is as likely."""
    return math.exp(random.uniform(math.log(least), math.log(most)))
