"""Reports to systemd that this process serves, for units with `Type=notify` (sd_notify(3))."""

import os
import socket
from contextlib import suppress


def report_ready() -> None:
    """Report that this process serves. Does nothing unless systemd asks for it."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    # systemd writes the first byte of an abstract address, which is 0, as @.
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reporting:
        reporting.connect(address)
        reporting.send(b"READY=1")
