"""How long this process stood still: a test that bounds a time allows as much more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LOOK_SECONDS = 0.02


class Standstill:
    """The seconds by which all timers of the event loop were late, in all."""

    def __init__(self) -> None:
        self.seconds = 0.0

    async def measure(self) -> None:
        time = asyncio.get_running_loop().time
        while True:
            due = time() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            self.seconds += time() - due


@asynccontextmanager
async def standstill() -> AsyncIterator[Standstill]:
    """Measure during the block, on a machine that may be busy with something else."""
    measured = Standstill()
    measuring = asyncio.create_task(measured.measure())
    try:
        yield measured
    finally:
        measuring.cancel()
        await asyncio.wait({measuring})
