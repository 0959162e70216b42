"""Ports of this machine for what a test starts."""

import os
import random
import socket

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))

PORTS = random.SystemRandom().sample(range(10_000 + _WORKER, 32_768, _WORKERS), k=2_000)
"""Those of this process, each for one use. They are below those from which Linux takes one for each
connection. One of these, or of another process's, could be taken before the test's server listens,
or while it is down and is to start again on the same port."""


def free_port() -> int:
    """Return a port that nothing listens on, and that this returns once."""
    while True:
        port = PORTS.pop()
        with socket.socket() as probe:
            # As a server does: a connection that has ended is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
