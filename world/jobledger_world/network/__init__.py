"""gRPC in memory, as far as grpc.aio's two sides are used here, with faults that a seed decides."""

from jobledger_world.network.connection import Connection
from jobledger_world.network.network import Network

__all__ = ["Connection", "Network"]
