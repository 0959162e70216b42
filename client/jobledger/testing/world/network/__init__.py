"""gRPC in memory, as far as grpc.aio's two sides are used here, with faults that a seed decides."""

from jobledger.testing.world.network.connection import Connection
from jobledger.testing.world.network.network import Network

__all__ = ["Connection", "Network"]
