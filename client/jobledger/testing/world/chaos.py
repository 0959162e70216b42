"""Faults at times that a seed decides, while a test goes on."""

import asyncio
import math
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import TYPE_CHECKING, Final

from jobledger.testing.world.faults import FAULTS, Fault, Kind

if TYPE_CHECKING:
    from jobledger.testing.world.world import World

SECONDS_BETWEEN: Final = 3.0, 120.0
"""Between two faults of one name on average: the seed decides whether often or rarely."""

LEFT_OUT: Final = 0.6
"""The part of runs without faults of one name: one may hide what another would show."""

LASTS: Final = 0.1, 60.0
"""How many seconds a fault lasts: most last shortly."""


class Chaos:
    """Breaks what there is, again and again.

    Args:
        world: The world.
        number: Of the chaos in this run, which has a chance of its own.
        kinds: What breaks.
        seconds: How long it lasts at most.
    """

    def __init__(
        self, world: "World", number: int, kinds: Collection[Kind], seconds: float
    ) -> None:
        self._world = world
        self._number = number
        self._kinds = kinds
        self._until = world.loop.time() + seconds
        self._over = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Break things during the block. At its end everything works again."""
        tasks = [
            asyncio.create_task(self._repeat(name, fault), name=f"chaos {name}")
            for kind in self._kinds
            for name, fault in FAULTS[kind].items()
        ]
        try:
            yield
        finally:
            self._over.set()  # each repairs what it has broken
            await asyncio.gather(*tasks)
            self._world.fault("chaos ends")

    async def _repeat(self, name: str, fault: Fault) -> None:
        random = self._world.chance.of(f"chaos {self._number} {name}")
        if random.random() < LEFT_OUT:
            return
        mean = _between(random, *SECONDS_BETWEEN)
        while self._goes_on:
            await self._pause(random.expovariate(1 / mean))
            if self._goes_on:
                await fault(self._world, random, lambda: self._last(random))

    @property
    def _goes_on(self) -> bool:
        return not self._over.is_set() and self._world.loop.time() < self._until

    async def _last(self, random: Random) -> None:
        await self._pause(_between(random, *LASTS))

    async def _pause(self, seconds: float) -> None:
        """Wait for so long, or until it is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()


def _between(random: Random, least: float, most: float) -> float:
    """Return a number between these, of which each order of magnitude is as likely."""
    return math.exp(random.uniform(math.log(least), math.log(most)))
