"""The gateway in this process, over real HTTP, for a real server."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from jobledger_gateway.serving import bind, serve
from jobledger_gateway.settings import Settings
from tests.support.http_client import Http
from tests.support.rpc_caller import Caller, calling
from tests.support.server_process import ServerProcess

SILENCE_MS = 500


@asynccontextmanager
async def running_gateway(
    target: str,
    host: str = "127.0.0.1",
    *,
    send_buffer: int | None = None,
    certificate: tuple[str, str] | None = None,
    **settings: object,
) -> AsyncIterator[Http]:
    """Run a gateway on a free port until the block ends.

    The kernel holds `send_buffer` bytes that a client has not read.
    """
    listener = bind(host, 0, SILENCE_MS)
    if send_buffer is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    port = listener.getsockname()[1]
    stop, started = asyncio.Event(), asyncio.Event()
    configured = Settings(target=target, **{"access_log": False, **settings})
    serving = asyncio.create_task(
        serve(configured, listener, stop, started=started.set, certificate=certificate)
    )
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    http = Http(port)
    http.stop = stop.set
    try:
        yield http
    finally:
        waiting.cancel()
        stop.set()
        await serving


@pytest.fixture
async def start_gateway() -> AsyncIterator[Callable[..., object]]:
    """Start gateways, which stop at the end of the test."""
    async with AsyncExitStack() as stack:

        async def start(target: str, **settings: object) -> Http:
            return await stack.enter_async_context(running_gateway(target, **settings))

        yield start


@pytest.fixture
async def http(server: ServerProcess, start_gateway: Callable[..., object]) -> Http:
    """Call a gateway of the server that all share."""
    return await start_gateway(server.target)


@pytest.fixture
async def rpc(server: ServerProcess) -> AsyncIterator[Caller]:
    """Call the server that all share, without a gateway."""
    async with calling(server.target) as call:
        yield call
