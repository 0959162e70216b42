"""A real server as a process of its own, on SQLite in a folder: for tests and demos."""

import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

START: Final = 60.0
"""Seconds that the server has until it accepts calls: a busy machine may need many."""

STOP: Final = 10.0
"""Seconds that the server has to drain."""


class ServerFailed(Exception):
    """The server did not start, or did not exit with 0; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A server that runs."""

    target: str
    """Its address, for a client: `host:port`."""
    folder: Path
    """Where its database and its log are."""


@contextmanager
def local_server(folder: Path) -> Iterator[LocalServer]:
    """Run `jobledger-server serve` while the block runs; needs the extra `testing` or `server`.

    It listens on a free port of the loopback interface, with its jobs in `folder/jobledger.db` and
    its log in `folder/server.log`.

    Raises:
        ServerFailed: it did not start, or did not exit with 0.
    """
    if importlib.util.find_spec("jobledger_server") is None:
        raise ServerFailed("the server is not installed: pip install 'jobledger[testing]'")
    log = folder / "server.log"
    process = subprocess.Popen(  # noqa: S603  # this Python and fixed arguments
        [
            *(sys.executable, "-m", "jobledger_server", "serve"),
            *("--listen", "127.0.0.1:0", "--database", "sqlite:///jobledger.db"),
        ],
        cwd=folder,
        # Settings that are meant for another server are not for this one.
        env={name: value for name, value in os.environ.items() if name[:10] != "JOBLEDGER_"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        # Ctrl-C is for the caller, who stops the server when nothing needs it any more.
        start_new_session=True,
    )
    addresses: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read_log, args=(process.stderr, log, addresses))
    reader.start()
    address, is_late = None, False
    try:
        try:
            address = addresses.get(timeout=START)
        except queue.Empty:
            is_late = True
        if address is not None:
            yield LocalServer(address, folder)
    finally:
        code = _stop(process)
        reader.join()
    if address is None or code != 0:
        lines = "".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-5:])
        what = f"does not serve after {START:g} s" if is_late else f"exited with {code}"
        raise ServerFailed(f"the server {what}: {lines}")


def _read_log(lines: IO[str], log: Path, addresses: "queue.SimpleQueue[str | None]") -> None:
    """Read to the end, or the full pipe would stop the server; pass the address on."""
    with lines, log.open("w", encoding="utf-8") as copy:
        for line in lines:
            copy.write(line)
            copy.flush()
            # A JSON object a line, unless something else writes there, too.
            with suppress(ValueError, LookupError, TypeError):
                entry = json.loads(line)
                if entry["event"] == "serving":  # when it accepts calls
                    addresses.put(entry["address"])
    addresses.put(None)


def _stop(process: "subprocess.Popen[str]") -> int:
    try:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP)
    finally:
        process.kill()  # Does nothing to a process that has exited.
    return process.wait()
