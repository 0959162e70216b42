"""Ports of this machine for what a test starts."""

import random
import socket

PORTS = range(10_000, 32_768)
"""Below those from which Linux takes one for each connection. One of these could be taken before
the test's server listens, or while it is down and is to start again on the same port."""


def free_port() -> int:
    """Return a port that nothing listens on."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            # As a server does: a connection that has ended is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
