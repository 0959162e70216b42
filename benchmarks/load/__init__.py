"""The load: programs that call servers. Here is the job of every measurement, and its life.

Jobs have the size that real ones have. This module needs the standard library only: the peers'
own environment imports it too.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

Reply = dict[str, Any]
"""What a program answers to a command."""

USER = "benchmark"
COMMITS_USER = "commits"
"""The owner of jobs that are made many in one commit."""

JOB_TYPE = "render"

PARAMETERS = {
    "prompt": "a lighthouse at dusk, seen from the sea",
    "model": "painter-4",
    "width": 1024,
    "height": 768,
    "steps": 30,
    "upscale": True,
}
LABELS = {"project": "apollo", "priority": "high"}

IN_FLIGHT = 64
"""Jobs that live at once, and jobs that a worker runs at once."""

PERCENTS = (20, 40, 60, 80)
"""What a job reports in its life."""

CHANGES = 4 + len(PERCENTS)
"""Of a whole life: created, claimed, its reports, its asset, completed."""

BATCH = 500
"""Jobs of one BatchCreateJobs."""

Life = tuple[float, float, int]
"""When the handler returned, when the observer knew, and how many reports it had seen.

The times are seconds of the monotonic clock, which all processes of a machine share. The first
travels in the job's result.
"""


class Wrong(Exception):
    """An answer was not what it must be."""


def asset_url(job_id: str) -> str:
    return f"https://assets.example/{job_id}.png"


def result() -> dict[str, float]:
    return {"images": 1, "completed": time.monotonic()}


async def live_many(
    jobs: int, live: Callable[[], Awaitable[Life]], in_flight: int = IN_FLIGHT
) -> list[Life]:
    """Live that many lives, `in_flight` at a time."""
    lives: list[Life] = []
    numbers = iter(range(jobs))

    async def owner() -> None:
        for _ in numbers:
            lives.append(await live())  # noqa: PERF401 - as they end, not one owner after the other

    async with asyncio.TaskGroup() as owners:
        for _ in range(in_flight):
            owners.create_task(owner())
    return lives
