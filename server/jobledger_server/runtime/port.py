"""The port that is served: whose it is, and how several processes come to share it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


class PortUnavailable(Exception):
    """The address cannot be listened on; the message says which."""

    def __init__(self, listen: str) -> None:
        super().__init__(
            f"cannot listen on {listen}: another server is running there, or it is no address of "
            "this machine"
        )


@contextmanager
def shared_port(listen: str) -> Iterator[str]:
    """Hold a port for as long as the block lasts, for processes of ours to listen on together.

    Yields the address, with the real port where 0 was asked for. What holds the port
    does not listen and is given no connection. Raises PortUnavailable, also where
    another program is on the port that would share it.
    """
    host, _, wanted = listen.rpartition(":")
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host.strip("[]") or None, wanted, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as alone:
            # Who does not share is refused where anybody is, other than by a connection of old.
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
        holder = socket.socket(family, kind)
    except (OSError, OverflowError, UnicodeError):
        raise PortUnavailable(listen) from None
    with holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            holder.bind(address)
        except OSError:
            raise PortUnavailable(listen) from None
        yield f"{host}:{holder.getsockname()[1]}"
