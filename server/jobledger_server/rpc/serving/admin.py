"""Channelz on a port of its own, and reflection of it.

It shows what gRPC has open in this process: servers, connections, calls, and who calls. It knows no
identities, so only programs on this machine may ask. gRPC's admin package adds CSDS, the
state of xDS, which this server does not use.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from jobledger_server.rpc.serving.reflection import add_reflection
from jobledger_server.settings import is_loopback

CHANNELZ = "grpc.channelz.v1.Channelz"


class AdminUnavailable(Exception):
    """Channelz cannot be served. The message says why."""


@asynccontextmanager
async def serving_admin(listen: str) -> AsyncIterator[None]:
    """Serve channelz during the block.

    Raises AdminUnavailable.
    """
    if not is_loopback(listen):
        raise AdminUnavailable(f"--admin {listen} can be reached from other machines: use loopback")
    try:
        # An optional extra.
        from grpc_channelz.v1.channelz import add_channelz_servicer  # noqa: PLC0415
    except ImportError:
        raise AdminUnavailable(
            "--admin needs its library: pip install 'jobledger[admin]'"
        ) from None
    server: Any = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    add_channelz_servicer(server)
    add_reflection(server, (CHANNELZ,))
    try:
        server.add_insecure_port(listen)
    except RuntimeError:
        await server.stop(None)
        raise AdminUnavailable(f"cannot serve --admin on {listen}") from None
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
