"""The lifecycle that every peer lives through, and how an owners' program reports it.

Needs the standard library only: the peers' own environment imports it too.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

IN_FLIGHT = 64
"""Jobs that live at once, and jobs that the worker runs at once."""

PERCENTS = (20, 40, 60, 80)
PARAMETERS = {
    "prompt": "a lighthouse at dusk, seen from the sea",
    "model": "painter-4",
    "width": 1024,
    "height": 768,
    "steps": 30,
    "upscale": True,
}

Life = tuple[float, float, int]
"""When the handler returned, when the observer knew, and how many updates it had seen.

The times are seconds of the monotonic clock, which all processes of a machine share. The first
travels in the job's result.
"""


def asset_url(job_id: str) -> str:
    return f"https://assets.example/{job_id}.png"


def result() -> dict[str, float]:
    return {"images": 1, "completed": time.monotonic()}


def answer(live: Callable[[int], Sequence[Life]]) -> None:
    """Live as many lifecycles as each line of standard input asks for; write them as a line."""
    for line in sys.stdin:
        print(json.dumps(live(int(line))), flush=True)


async def live_many(count: int, live: Callable[[], Awaitable[Life]]) -> list[Life]:
    """Live `count` lifecycles, `IN_FLIGHT` at a time."""
    lives: list[Life] = []
    numbers = iter(range(count))

    async def owner() -> None:
        for _ in numbers:
            lives.append(await live())  # noqa: PERF401 - as they end, not one owner after the other

    async with asyncio.TaskGroup() as owners:
        for _ in range(IN_FLIGHT):
            owners.create_task(owner())
    return lives
