"""Connections: how many there are, how long they are silent, and how their heads arrive.

uvicorn has no time limit for a head, never closes a connection that sends no request, and refuses
health checks too when it has too many connections. So what is here stands between a socket and
uvicorn's protocol, which knows HTTP.
"""

import asyncio
import ipaddress
from collections.abc import Sequence
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from jobledger_gateway.budget import Budget, counted_address
from jobledger_gateway.limits import PART_BYTES, READ_BYTES, SPARE_CONNECTIONS
from jobledger_gateway.problems import HttpProblem
from jobledger_gateway.settings import Network, Settings


class Connections:
    """All connections of a gateway. Those beyond the limits are closed at once.

    A connection of a proxy counts for no address: it carries requests of many.
    """

    def __init__(self, settings: Settings) -> None:
        self._most = settings.max_connections
        self._proxies = settings.proxies
        self._budget = Budget(
            "connections", self._most + SPARE_CONNECTIONS, settings.max_address_connections
        )
        self.head_timeout = settings.head_timeout
        # One for all connections: what is read into it is copied before anything else is read.
        self.buffer = bytearray(READ_BYTES)

    @property
    def too_many(self) -> bool:
        """Whether only those that probe the gateway are served."""
        return self._budget.held > self._most

    def add(self, host: str, port: int) -> str:
        """Count a connection; return the name by which `remove` is told of its end.

        Raises:
            HttpProblem: there are too many.
        """
        name = f"{host} {port}" if _is_in(self._proxies, host) else counted_address(host)
        self._budget.take(name)
        return name

    def remove(self, name: str) -> None:
        """Count a connection no more."""
        self._budget.give_back(name)


def _is_in(networks: Sequence[Network], host: str) -> bool:
    if not networks:
        return False
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


class Connection(asyncio.BufferedProtocol):
    """One connection, in front of uvicorn's protocol. uvicorn makes it (`http` of its Config).

    It reads READ_BYTES at once, for which only a BufferedProtocol can ask: all that a client has
    sent could be 256 KiB, and h11 takes a head of any length that is there as a whole.

    Args:
        config: uvicorn's.
        server_state: uvicorn's.
        app_state: what the application's lifespan has yielded: `connections`.
        _loop: not needed.
    """

    __slots__ = (
        "_connections",
        "_has_begun",
        "_http",
        "_name",
        "_requests",
        "_timer",
        "_transport",
    )

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._connections: Connections = app_state["connections"]
        # The application finds this connection in the scope of a request.
        self._http = H11Protocol(config, server_state, {**app_state, "connection": self})
        self._name: str | None = None
        self._requests = 0
        self._timer: asyncio.TimerHandle | None = None
        self._has_begun = False

    def count(self, host: str, port: int) -> None:
        """Count it before it is made: at the begin of a TLS handshake.

        Raises:
            HttpProblem: there are too many.
        """
        self._name = self._connections.add(host, port)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, if there are not too many connections."""
        self._transport = transport
        if self._name is None:
            peer = transport.get_extra_info("peername") or ("", 0)
            try:
                self.count(*peer[:2])
            except HttpProblem:
                transport.abort()
                return
        self._has_begun = True
        transport.set_write_buffer_limits(high=PART_BYTES)
        self._http.connection_made(transport)
        self._await_head()

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002
        """Return what is read into next."""
        return self._connections.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what was read."""
        if self._name is not None:
            self._http.data_received(bytes(memoryview(self._connections.buffer)[:nbytes]))

    def eof_received(self) -> None:
        """Close: uvicorn's protocol does no more at the end of what a client sends."""

    def pause_writing(self) -> None:
        """Pass this on."""
        self._http.pause_writing()

    def resume_writing(self) -> None:
        """Pass this on."""
        self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and make room for another connection."""
        if self._name is None:
            return
        self._stop_timer()
        self._connections.remove(self._name)
        self._name = None
        if self._has_begun:
            self._http.connection_lost(exc)

    @property
    def is_refused(self) -> bool:
        """Whether the requests of this connection are refused: there are too many."""
        return self._connections.too_many

    def begin_request(self) -> None:
        """Wait for no head until `end_request`: a request is under way."""
        self._stop_timer()
        self._requests += 1

    def end_request(self) -> None:
        """Wait for the next head, if no other request is under way."""
        self._requests -= 1
        if self._requests == 0 and self._name is not None:
            self._await_head()

    def _await_head(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._connections.head_timeout, self._transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
