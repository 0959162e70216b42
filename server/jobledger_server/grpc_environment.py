"""What gRPC is told by the environment of a server's process; it reads it when it is imported."""

from collections.abc import Mapping

GRPC_ENVIRONMENT: Mapping[str, str] = {
    # gRPC's core writes lines of its own among the JSON ones; say otherwise to see them.
    "GRPC_VERBOSITY": "NONE",
    # The thread that waits for events reads and writes the sockets too, as gRPC did it before:
    # no message is handed from thread to thread on its way. See docs/decisions/0029.
    "GRPC_EXPERIMENTS": "-event_engine_listener",
}
"""By name. Whoever starts the server may say otherwise."""
