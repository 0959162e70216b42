"""The port that the server listens on, and how several processes share it."""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress


class PortUnavailable(Exception):
    """The server cannot listen on the address."""

    def __init__(self, listen: str) -> None:
        cause = "is not an address of this machine"
        if listen.startswith("unix:"):
            cause = "cannot be created"
        super().__init__(
            f"cannot listen on {listen}: another server is running there, or it {cause}"
        )


class Unprotected(Exception):
    """The server would serve other machines without encryption."""

    def __init__(self, listen: str) -> None:
        super().__init__(
            f"{listen} can be reached from other machines, and tokens and jobs would not be "
            "encrypted: set --tls-cert and --tls-key (and --tls-client-ca, to require certificates "
            "of clients), or --insecure if a service mesh or a proxy protects the server"
        )


def check_socket_file(listen: str) -> None:
    """Raise PortUnavailable if another server listens at a Unix socket.

    gRPC would take the file from that server, which would remove it when it stops.
    """
    if listen.startswith("unix:"):
        with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)  # noqa: FBT003
            if probe.connect_ex(listen.removeprefix("unix:")) in (0, errno.EAGAIN):
                raise PortUnavailable(listen)


@contextmanager
def private_socket_file(listen: str) -> Iterator[None]:
    """Let a Unix socket that is created in the block be its owner's only."""
    if not listen.startswith("unix:"):
        yield
        return
    # A later chmod would leave the socket open to others until then.
    usual = os.umask(stat.S_IXUSR | stat.S_IRWXG | stat.S_IRWXO)
    try:
        yield
    finally:
        os.umask(usual)


@contextmanager
def shared_port(listen: str) -> Iterator[str]:
    """Reserve a port during the block, for several processes of this server to listen on.

    The socket that reserves it does not listen, so it gets no connections.

    Yields:
        The address, with the real port if `listen` has port 0.

    Raises:
        PortUnavailable: Another program uses the port, even one that would share it, or it
            is not an address of this machine.
    """
    host, _, port = listen.rpartition(":")
    with ExitStack() as stack:
        try:
            family, kind, _, _, address = socket.getaddrinfo(
                host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with socket.socket(family, kind) as probe:
                # Without SO_REUSEPORT this fails if any socket uses the port. Connections of an
                # earlier process do not count, because of SO_REUSEADDR.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
            holder = stack.enter_context(socket.socket(family, kind))
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(address)
        except (OSError, OverflowError, UnicodeError):
            raise PortUnavailable(listen) from None
        yield f"{host}:{holder.getsockname()[1]}"
