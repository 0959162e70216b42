"""A Jobledger server of one's own, as a process: for demos, and for trying things out."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

STOP_SECONDS = 10.0


class ServerFailed(Exception):
    """The server did not start, or did not end well; the message has the end of its log."""


@contextmanager
def local_server(folder: Path) -> Iterator[str]:
    """Run `jobledger-server serve` for as long as the block lasts; yields its `host:port`.

    It listens on a free port of loopback and keeps its jobs in `folder/jobledger.db`
    and its log in `folder/server.log`. It ends by SIGTERM, which lets it finish what
    it is doing. Raises ServerFailed.
    """
    log = folder / "server.log"
    process = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("jobledger-server")),
            *("serve", "--listen", "127.0.0.1:0", "--database", "sqlite:///jobledger.db"),
        ],
        cwd=folder,
        # Settings that are meant for another server are not for this one.
        env={name: value for name, value in os.environ.items() if name[:10] != "JOBLEDGER_"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Ctrl-C is for the caller, who stops the server when nobody needs it any more.
        start_new_session=True,
    )
    addresses: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read_log, args=(process.stderr, log, addresses))
    reader.start()
    try:
        address = addresses.get()
        if address is not None:
            yield address
    finally:
        code = _stop(process)
        reader.join()
    if address is None or code != 0:
        words = "".join(log.read_text().splitlines(keepends=True)[-5:])
        raise ServerFailed(f"the server ended with {code}: {words}")


def _read_log(lines: IO[str], log: Path, addresses: "queue.SimpleQueue[str | None]") -> None:
    """Read to the end, or the full pipe would stop the server; tell the address once known."""
    with lines, log.open("w") as copy:
        for line in lines:
            copy.write(line)
            copy.flush()
            # A JSON object a line; `serving` is the one that comes when it takes calls.
            if line.startswith("{") and (entry := json.loads(line))["event"] == "serving":
                addresses.put(entry["address"])
    addresses.put(None)


def _stop(process: "subprocess.Popen[str]") -> int:
    try:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    finally:
        process.kill()  # Does nothing to a process that has ended.
    return process.wait()
