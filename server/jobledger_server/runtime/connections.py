"""Capacity for new connections: closes connections without a call, the longest idle first.

gRPC refuses connections beyond its limit and has no call to close one. The kernel knows how
much each connection has received and when. If its socket is shut down, gRPC sees a client
that has disconnected.

gRPC's own options end a connection by its idle time or age, the same for all, and not the sooner
for being near the limit. So without this, clients that connect and do nothing would lock out all
others until their idle time is over. It bounds how many connections are unused, not what a
connection sends: a flood begins again with each connection (docs/operate/exposure.md).
"""

import asyncio
import logging
import os
import socket
import struct
import sys
from collections.abc import Collection
from contextlib import suppress

INTERVAL_SECONDS = 0.25

GREETING_BYTES = 200
"""A client's HTTP/2 preface, SETTINGS and WINDOW_UPDATE are less; with a call it sends more."""

IDLE_MILLISECONDS = 1000
"""A connection that had calls is idle after this time without data in either direction."""

_ESTABLISHED = 1
_TCP_INFO = struct.Struct("=B43xI4xI72xQ")
"""Of the kernel's tcp_info: state, milliseconds since it sent and received, bytes received."""

log = logging.getLogger("jobledger.server")


async def free_connections(address: str, allowed: int, busy: Collection[str]) -> None:
    """Keep a tenth of the allowed connections free, until cancelled.

    Works only on Linux, and not for a Unix socket.

    Args:
        address: The address that is served.
        allowed: Connections that may be open.
        busy: The peers that have a call in progress, as gRPC names them.
    """
    port = address.rpartition(":")[2]
    most = allowed - max(1, allowed // 10)
    while sys.platform == "linux" and port.isdigit():
        await asyncio.sleep(INTERVAL_SECONDS)
        with suppress(OSError):  # no free descriptor, not even for this
            if _count_descriptors() <= most:
                continue
            # By port alone: a peer's address can be written in more than one way.
            ports = {peer.rpartition(":")[2] for peer in busy}
            closed = await asyncio.to_thread(_close_unused, int(port), most, ports)
            if closed:
                log.warning("unused_connections_closed", extra={"count": closed})


def _close_unused(port: int, most: int, busy: Collection[str]) -> int:
    """Close unused connections beyond `most`; return how many were closed.

    Connections that never had a call are closed first, then the longest idle ones.
    """
    count = 0
    unused = []
    for number in _descriptors():
        # An error means that it is closed by now, or is not a socket.
        with suppress(OSError), _duplicate(number) as connection:
            if not _is_to(connection, port):
                continue
            count += 1
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            state, sent, received, size = _TCP_INFO.unpack(info)
            peer, idle, new = connection.getpeername(), min(sent, received), size < GREETING_BYTES
            if state != _ESTABLISHED or str(peer[1]) in busy:
                continue
            if new or idle >= IDLE_MILLISECONDS:
                # The longer of the two times, because a new connection may send the end of its
                # greeting late. The lowest descriptor is the oldest of those of the same age.
                unused.append((not new, -max(sent, received), number, peer))
    unused.sort()
    closed = 0
    for *_, number, peer in unused[: max(0, count - most)]:
        with suppress(OSError), _duplicate(number) as connection:
            # The descriptor may belong to another connection by now.
            if _is_to(connection, port) and connection.getpeername() == peer:
                connection.shutdown(socket.SHUT_RDWR)
                closed += 1
    return closed


def _descriptors() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208


def _count_descriptors() -> int:
    """Count the open descriptors. Linux before 6.2 says 0, and then they are listed."""
    return os.stat("/proc/self/fd").st_size or len(_descriptors())  # noqa: PTH116


def _duplicate(number: int) -> socket.socket:
    """Return a second descriptor of a socket, which stays valid if the first one is closed."""
    duplicate = os.dup(number)
    try:
        return socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        raise


def _is_to(connection: socket.socket, port: int) -> bool:
    inet = connection.family in (socket.AF_INET, socket.AF_INET6)
    return inet and connection.getsockname()[1] == port
