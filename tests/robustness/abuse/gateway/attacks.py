"""Attacks on a gateway over plain sockets, each from one address and without credentials."""

import selectors
import socket
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from itertools import count

from tests.robustness.abuse.attacker import begin, parent_waits, wait_for_parent


def idle(target: str, *, connections: int) -> Mapping[str, object]:
    """Connect, and send nothing."""
    sockets = _connected(target, connections)
    begin()
    wait_for_parent()
    return {"open": _open(sockets)}


def unfinished_handshakes(target: str, *, connections: int) -> Mapping[str, object]:
    """Send the begin of a TLS handshake over each connection, and no more."""
    sockets = _connected(target, connections)
    # A record of 512 bytes with a ClientHello, of which most is missing.
    _send_all(sockets, bytes.fromhex("1603010200010001fc0303") + b"a" * 32, seconds=5)
    begin()
    wait_for_parent()
    return {"open": _open(sockets)}


def half_sent_bodies(target: str, *, connections: int, size: int) -> Mapping[str, object]:
    """Send all of each body except its last byte."""
    head = _post(size)
    sockets = _connected(target, connections)
    _send_all(sockets, head + b" " * (size - 1), seconds=5)
    begin()
    wait_for_parent()
    return {"open": _open(sockets)}


def _post(size: int) -> bytes:
    return (
        "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {size}\r\n\r\n"
    ).encode()


def requests(target: str, *, request: str, a_second: int, connections: int) -> Mapping[str, object]:
    """Send one request after the other over each connection; connect again where it was closed."""
    data = request.encode()
    begin()
    sent = 0
    sockets: list[socket.socket | None] = [None] * connections
    began = time.monotonic()
    for number in count():
        if not parent_waits():
            break
        index = number % connections
        sockets[index] = _sent(target, sockets[index], data)
        sent += 1
        time.sleep(max(0.0, began + sent / a_second - time.monotonic()))
    return {"sent": sent}


def _sent(target: str, connection: socket.socket | None, data: bytes) -> socket.socket | None:
    with suppress(OSError):
        if connection is None:
            connection = _connected(target, 1)[0]
            connection.settimeout(0)
        with suppress(BlockingIOError):
            while connection.recv(2**20):
                pass
            connection.close()
            return None
        connection.settimeout(1)
        connection.sendall(data)
        connection.settimeout(0)
        return connection
    if connection is not None:
        connection.close()
    return None


def _connected(target: str, connections: int) -> list[socket.socket]:
    host, _, port = target.rpartition(":")
    sockets = []
    for _ in range(connections):
        with suppress(OSError):
            sockets.append(socket.create_connection((host, int(port)), timeout=5))
    return sockets


def _send_all(sockets: list[socket.socket], data: bytes, *, seconds: float) -> None:
    """Send the data over each connection, as fast as it is taken."""
    rest = {each: memoryview(data) for each in sockets}
    end = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for each in sockets:
            each.settimeout(0)
            selector.register(each, selectors.EVENT_WRITE)
        while selector.get_map() and time.monotonic() < end:
            for key, _ in selector.select(0.1):
                connection: socket.socket = key.fileobj
                try:
                    rest[connection] = rest[connection][connection.send(rest[connection]) :]
                except OSError:
                    rest[connection] = memoryview(b"")
                if not rest[connection]:
                    selector.unregister(connection)


def _open(sockets: list[socket.socket]) -> int:
    """Count the connections that the gateway has not closed."""
    count = 0
    for each in sockets:
        each.settimeout(0)
        try:
            while each.recv(2**20):
                pass
        except BlockingIOError:
            count += 1
        except OSError:
            pass
    return count


def event_streams(target: str, *, path: str, streams: int) -> Mapping[str, object]:
    """Open event streams, each with another made-up token, and read nothing but their status."""
    sockets = _connected(target, streams)
    for number, each in enumerate(sockets):
        with suppress(OSError):
            each.sendall(_get(path, token=f"made-up-{number}"))
    begin()
    wait_for_parent()
    statuses = Counter(_status(each) for each in sockets)
    return {str(status): times for status, times in statuses.items()}


def _get(path: str, *, token: str = "") -> bytes:
    credentials = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{credentials}\r\n".encode()


def _status(connection: socket.socket) -> int | None:
    """Return the status of an answer; None if there was none."""
    connection.settimeout(0)
    with suppress(OSError):
        if head := connection.recv(12):
            return int(head.split()[1])
    return None


def unread(target: str, *, path: str, connections: int) -> Mapping[str, object]:
    """Ask for the same over many connections at once, and read no answer."""
    sockets = _connected(target, connections)
    for each in sockets:
        with suppress(OSError):
            each.sendall(_get(path))
    begin()
    wait_for_parent()
    statuses = Counter(_status(each) for each in sockets)
    return {str(status): times for status, times in statuses.items()}
