"""gRPC set up as the real server sets it up, for servers that do nothing; see decision 0029.

The other half of it is the environment of their processes, `GRPC_ENVIRONMENT`, which they are
started with.
"""

from collections.abc import Mapping
from typing import Any

import grpc

from jobledger_server.wire.handlers import has_own_queue


class AsOurs:
    """Takes services for a server, and registers the methods that the real one registers."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        registered = {
            name: handler
            for name, handler in handlers.items()
            if has_own_queue(f"/{service}/{name}", handler)
        }
        self._server.add_registered_method_handlers(service, registered)
