"""How gRPC wakes the event loop: once for all that has happened, not once for each event.

A thread of grpc.aio waits for what happens to calls. For each event it writes a byte into
one of a pair of sockets, of which the event loop watches the other; and the loop reads one
byte a turn, and takes all events that are there. Under load most turns find none. Here the
pair is a pipe, which is emptied when it is read. See docs/decisions/0029.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import grpc.aio

_EVERYTHING = 65_536
"""Bytes that a pipe of Linux holds, if nobody has asked for more."""


@contextmanager
def waking_by_pipe() -> Iterator[None]:
    """Have gRPC's aio wake the running event loop so, for as long as the block lasts.

    To be entered in the loop, before the process has a server or a channel of grpc.aio.
    Where no pipe can be watched, which is on Windows, all stays as it is.
    Raises RuntimeError where no loop runs: gRPC would make one that is no use.
    """
    asyncio.get_running_loop()
    pair = socket.socketpair
    if sys.platform != "win32":
        socket.socketpair = _pipe  # type: ignore[assignment]
    try:
        grpc.aio.init_grpc_aio()
    finally:
        socket.socketpair = pair
    try:
        yield
    finally:
        grpc.aio.shutdown_grpc_aio()


class _End:
    """An end of a pipe, as much like a socket as gRPC wants it to be."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)

    def fileno(self) -> int:
        return self._descriptor

    def setblocking(self, blocking: bool) -> None:  # noqa: FBT001
        os.set_blocking(self._descriptor, blocking)

    def recv(self, _size: int) -> bytes:
        return os.read(self._descriptor, _EVERYTHING)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _pipe() -> tuple[_End, _End]:
    reader, writer = os.pipe()
    return _End(reader), _End(writer)
