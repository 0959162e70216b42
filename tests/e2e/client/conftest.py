"""A server that misbehaves on demand, and the real one."""

import asyncio
import contextlib
import functools
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jobledger import AsyncClient, Client, FeedEvent, JobChange, ProgressResult
from tests.e2e.client.report_server import ReportServer


@pytest.fixture(params=["sync", "async"])
def collect(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Watch to the end with either client; give what was yielded."""

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
    """Follow many jobs with either client, for so many messages; give what was yielded."""

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


@pytest.fixture
def report_server() -> Iterator[ReportServer]:
    server = ReportServer()
    yield server
    server.stop()


@pytest.fixture(params=["sync", "async"])
def report(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Open a stream of reports with either client; give its `send`, which can be awaited."""

    @contextlib.asynccontextmanager
    async def report(target: str, **options: Any) -> AsyncIterator[Callable[..., Any]]:
        if request.param == "async":
            async with (
                AsyncClient(target, user_id="ada", **options) as client,
                client.report_progress() as reports,
            ):
                yield reports.send
            return
        loop = asyncio.get_running_loop()
        with (
            ThreadPoolExecutor(250) as threads,
            Client(target, user_id="ada", **options) as client,
            client.report_progress() as reports,
        ):

            async def send(*arguments: Any, **fields: Any) -> ProgressResult:
                call = functools.partial(reports.send, *arguments, **fields)
                return await loop.run_in_executor(threads, call)

            yield send

    return report
