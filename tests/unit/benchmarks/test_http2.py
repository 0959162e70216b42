"""The load generators' connection."""

import asyncio

import pytest

from benchmarks.load.http2 import CallFailed, connect


async def test_a_call_over_a_lost_connection_fails() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        connection = await connect(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        while not connection.closed:
            await asyncio.sleep(0.001)
        call = connection.unary_unary("/package.Service/Method", bytes, bytes)
        with pytest.raises(CallFailed, match="the connection was closed"):
            await call(b"")
