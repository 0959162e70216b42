"""A server that misbehaves on demand, and the real one."""

import asyncio
import itertools
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from jobledger import AsyncClient, Client, FeedEvent, JobChange
from tests.e2e.client.both_clients import kind_of
from tests.support.server_process import ServerProcess


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    """Return a client of a user that no other test uses."""
    with Client(server.target, user_id=f"user-{uuid.uuid4()}") as client:
        yield client


class Flaky(grpc.GenericRpcHandler):
    """Refuses each RPC a few times with UNAVAILABLE, then answers with nothing in it."""

    def __init__(self) -> None:
        self.refusals = 0
        self.target = ""
        self.code = grpc.StatusCode.UNAVAILABLE
        self.requests: list[bytes] = []
        self.asked = threading.Event()
        self.metadata: list[dict[str, str | bytes]] = []
        self.delay = 0.0
        self.stopped = threading.Event()

    def service(self, details: Any) -> Any:
        self.metadata.append(dict(details.invocation_metadata))
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, request: bytes, context: Any) -> bytes:
        self.requests.append(request)
        self.asked.set()
        if self.delay:
            self.stopped.wait(self.delay)
        if len(self.requests) <= self.refusals:
            context.abort(self.code, "away")
        return b""


@contextmanager
def flaky_server() -> Iterator[Flaky]:
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    handler = Flaky()
    server.add_generic_rpc_handlers([handler])
    handler.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield handler
    handler.stopped.set()
    server.stop(0).wait()


@pytest.fixture
def flaky() -> Iterator[Flaky]:
    with flaky_server() as server:
        yield server


@pytest.fixture
def collect(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Watch to the end with either client; return what was yielded."""

    async def collect(target: str, job_id: str, **options: Any) -> list[JobChange]:
        if kind_of(request) == "async":
            async with AsyncClient(target, user_id="ada") as client:
                return [message async for message in client.watch(job_id, **options)]

        def read() -> list[JobChange]:
            with Client(target, user_id="ada") as client:
                return list(client.watch(job_id, **options))

        return await asyncio.to_thread(read)

    return collect


@pytest.fixture
def collect_jobs(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Watch many jobs with either client, for a number of messages; return what was yielded."""

    async def collect(target: str, count: int, **options: Any) -> list[FeedEvent]:
        if kind_of(request) == "async":
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
def first_of(request: pytest.FixtureRequest, fault_server: Any) -> Callable[..., Any]:
    """Return at most so many events of a client's watch, with either client."""

    async def read_async(count: int, method: str, *arguments: Any, **options: Any) -> list[Any]:
        async with (
            AsyncClient(fault_server.target, user_id="ada") as client,
            getattr(client, method)(*arguments, **options) as events,
        ):
            seen: list[Any] = []
            async for event in events:
                seen.append(event)
                if len(seen) == count:
                    break
            return seen

    def read(count: int, method: str, *arguments: Any, **options: Any) -> list[Any]:
        with (
            Client(fault_server.target, user_id="ada") as client,
            getattr(client, method)(*arguments, **options) as events,
        ):
            return list(itertools.islice(events, count))

    async def first_of(count: int, *call: Any, **options: Any) -> list[Any]:
        if kind_of(request) == "async":
            return await read_async(count, *call, **options)
        return await asyncio.to_thread(read, count, *call, **options)

    return first_of
