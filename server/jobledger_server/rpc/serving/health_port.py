"""Health on a port of its own, without TLS: for probes that know no TLS, as those of Kubernetes.

Nothing else is served there, and no more than what the server's own port tells without a token.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio

from jobledger_server.runtime.port import PortUnavailable

OPTIONS = (
    ("grpc.so_reuseport", 0),
    # A prober connects, asks and hangs up. What stays takes the place of others for a short time.
    ("grpc.max_allowed_incoming_connections", 64),
    ("grpc.max_concurrent_streams", 10),
    ("grpc.server_handshake_timeout_ms", 2_000),
    ("grpc.max_connection_age_ms", 5_000),
    ("grpc.max_connection_age_grace_ms", 1_000),
    ("grpc.max_receive_message_length", 1024),
)


@asynccontextmanager
async def serving_health(listen: str, health: aio.HealthServicer) -> AsyncIterator[None]:
    """Answer health checks at this address during the block.

    Raises PortUnavailable.
    """
    server = grpc.aio.server(options=OPTIONS)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    try:
        server.add_insecure_port(listen)
    except RuntimeError:
        await server.stop(None)
        raise PortUnavailable(listen) from None
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
