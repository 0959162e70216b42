"""A server that misbehaves on demand, and the real one."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from jobledger import AsyncClient, Client, FeedEvent, JobChange


@pytest.fixture(params=["sync", "async"])
def collect(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Watch to the end with either client; return what was yielded."""

    async def collect(target: str, job_id: str, **options: Any) -> list[JobChange]:
        if request.param == "async":
            async with AsyncClient(target, user_id="ada") as client:
                return [message async for message in client.watch(job_id, **options)]

        def read() -> list[JobChange]:
            with Client(target, user_id="ada") as client:
                return list(client.watch(job_id, **options))

        return await asyncio.to_thread(read)

    return collect


@pytest.fixture(params=["sync", "async"])
def collect_jobs(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Watch many jobs with either client, for a number of messages; return what was yielded."""

    async def collect(target: str, count: int, **options: Any) -> list[FeedEvent]:
        if request.param == "async":
            async with (
                AsyncClient(target, user_id="ada") as client,
                client.watch_jobs(**options) as news,
            ):
                return [await anext(news) for _ in range(count)]

        def read() -> list[FeedEvent]:
            with (
                Client(target, user_id="ada") as client,
                client.watch_jobs(**options) as news,
            ):
                return list(itertools.islice(news, count))

        return await asyncio.to_thread(read)

    return collect
