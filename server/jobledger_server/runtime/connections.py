"""Capacity for new connections: those without a call under way are closed, oldest first.

gRPC refuses connections beyond its limit, and cannot be asked to close one. The kernel
knows how much each has received and when, and a socket that is shut down is to gRPC a
client that has gone.
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
"""A client's preface, settings and windows are less; with a call it has sent more."""

IDLE_MILLISECONDS = 1000
"""A connection over which calls were made is idle when nothing has come for so long."""

_ESTABLISHED = 1
_TCP_INFO = struct.Struct("=B43xI4xI72xQ")
"""Of the kernel's tcp_info: state, milliseconds since it sent and received, bytes received."""

log = logging.getLogger("jobledger.server")


async def free_connections(address: str, allowed: int, busy: Collection[str]) -> None:
    """See that a tenth of the allowed connections to an address is free, as far as possible.

    `busy` has the peers, as gRPC names them, that have a call under way. Does nothing on
    other systems than Linux, and for a socket file.
    """
    port = address.rpartition(":")[2]
    most = allowed - max(1, allowed // 10)
    while sys.platform == "linux" and port.isdigit():
        await asyncio.sleep(INTERVAL_SECONDS)
        with suppress(OSError):  # not even this has a descriptor
            if len(_descriptors()) <= most:
                continue
            # By port alone: a peer's address can be written in more than one way.
            ports = {peer.rpartition(":")[2] for peer in busy}
            closed = await asyncio.to_thread(_close_unused, int(port), most, ports)
            if closed:
                log.warning("unused_connections_closed", extra={"count": closed})


def _close_unused(port: int, most: int, busy: Collection[str]) -> int:
    """Close unused connections beyond `most`; return how many.

    First those that have never made a call, then those with the longest time since their last.
    """
    count = 0
    unused = []
    for number in _descriptors():
        # What fails has ended meanwhile, or is not a socket.
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
                # The longest since either: a new one sends its last greeting when it can. Of those
                # that came at once the first has the lowest number.
                unused.append((not new, -max(sent, received), number, peer))
    unused.sort()
    closed = 0
    for *_, number, peer in unused[: max(0, count - most)]:
        with suppress(OSError), _duplicate(number) as connection:
            # Another one may have the number by now.
            if _is_to(connection, port) and connection.getpeername() == peer:
                connection.shutdown(socket.SHUT_RDWR)
                closed += 1
    return closed


def _descriptors() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208


def _duplicate(number: int) -> socket.socket:
    """Return another descriptor of a socket, so that it cannot be closed and taken meanwhile."""
    duplicate = os.dup(number)
    try:
        return socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        raise


def _is_to(connection: socket.socket, port: int) -> bool:
    inet = connection.family in (socket.AF_INET, socket.AF_INET6)
    return inet and connection.getsockname()[1] == port
