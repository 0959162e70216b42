"""Attacks on a gateway: large messages in JSON, each as dear as its size permits."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from tests.robustness.abuse.attacker import begin, parent_waits
from tests.support.http_client import Http

AT_ONCE = 30

MANY_VALUES = {"x": [{}] * 174_000}
"""698 kB of JSON, and more than the service takes."""

MOST_VALUES = {"x": [None] * 65_000}
"""As many values as the service takes."""


def bodies(target: str, *, token: str, most: bool) -> Mapping[str, int]:
    """Create jobs, 30 at a time, and count the statuses of the answers."""
    parameters = MOST_VALUES if most else MANY_VALUES
    body = json.dumps({"userId": token, "jobType": "t", "parameters": parameters}).encode()
    headers = {"Content-Type": "application/json"}
    return _repeat(target, token, lambda http: http.send("POST", "/v1/jobs", headers, body))


def answers(target: str, *, token: str) -> Mapping[str, int]:
    """Read pages of jobs with large parameters."""
    path = f"/v1/jobs?user_id={token}&view=FULL"
    return _repeat(target, token, lambda http: http.get(path))


def streams(target: str, *, token: str) -> Mapping[str, int]:
    """Open event streams of jobs with large parameters; close each after its first event."""

    async def first_event(http: Http) -> None:
        async with http.events(f"/v1/events?user_id={token}&view=FULL") as events:
            await events.news()

    return _repeat(target, token, first_event)


def _repeat(
    target: str, token: str, request: Callable[[Http], Awaitable[object]]
) -> Mapping[str, int]:
    http = Http(int(target.rpartition(":")[2]), token)
    statuses: Counter[str] = Counter()

    async def repeat() -> None:
        while True:
            try:
                answer = await request(http)
            except (ConnectionError, AssertionError):
                statuses["refused"] += 1
            else:
                statuses[str(getattr(answer, "status", 200))] += 1

    async def attack() -> None:
        repeating = [asyncio.create_task(repeat()) for _ in range(AT_ONCE)]
        begin()
        while parent_waits():
            await asyncio.sleep(0.02)
        for task in repeating:
            task.cancel()
        for ended in await asyncio.gather(*repeating, return_exceptions=True):
            assert isinstance(ended, asyncio.CancelledError), ended

    asyncio.run(attack())
    return statuses
