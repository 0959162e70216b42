"""TLS handshakes: how many are under way, and how long each may take.

A server of asyncio knows the address of a connection only when its handshake is over, and uvicorn
cannot say how long that may take. So connections are accepted here, and counted first.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable

from jobledger_gateway.connections import Connection
from jobledger_gateway.problems import HttpProblem

log = logging.getLogger("jobledger.gateway")

BACKLOG = 2_048
"""Connections that the kernel holds until they are accepted."""

RETRY_SECONDS = 0.1
"""After a connection could not be accepted: the process has too many open files, for example."""


async def accept(
    listener: socket.socket,
    tls: ssl.SSLContext,
    timeout: float,  # noqa: ASYNC109
    make: Callable[[], Connection],
) -> None:
    """Accept connections and encrypt them, until this is cancelled.

    Args:
        listener: a bound socket that listens.
        tls: encrypts the connections.
        timeout: how long a handshake may take.
        make: makes what a connection is passed to.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as handshakes:
        while True:
            try:
                accepted, address = await loop.sock_accept(listener)
            except OSError as error:
                log.error("accept_failed error=%s", error)  # noqa: TRY400
                await asyncio.sleep(RETRY_SECONDS)
                continue
            connection = make()
            try:
                connection.count(*address[:2])
            except HttpProblem:
                accepted.close()
                continue
            handshakes.create_task(_encrypt(accepted, tls, timeout, connection))


async def _encrypt(
    accepted: socket.socket,
    tls: ssl.SSLContext,
    timeout: float,  # noqa: ASYNC109
    connection: Connection,
) -> None:
    loop = asyncio.get_running_loop()
    try:
        await loop.connect_accepted_socket(
            lambda: connection, accepted, ssl=tls, ssl_handshake_timeout=timeout
        )
    except OSError:  # also ssl.SSLError, and the end of the time
        connection.connection_lost(None)
    except Exception:
        # The other connections go on.
        log.exception("handshake_crashed")
        connection.connection_lost(None)
