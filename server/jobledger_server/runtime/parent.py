"""The parent of this process, if it is one of several that serve a port.

A socket pair connects the two; this process has its end as standard input. It writes a byte
when it serves. The parent writes nothing, so the socket becomes readable when the parent exits.
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress

_SOCKET = 0


def report_serving() -> None:
    """Report to the parent that this process serves."""
    with suppress(OSError):  # the parent has exited: `on_exit` handles that
        os.write(_SOCKET, b"\n")


def on_exit(callback: Callable[[], None]) -> None:
    """Call `callback` on the running event loop once the parent has exited for any reason."""
    loop = asyncio.get_running_loop()

    def exited() -> None:
        loop.remove_reader(_SOCKET)
        callback()

    loop.add_reader(_SOCKET, exited)
