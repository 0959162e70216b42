"""The real gateway as a process of its own, on a free port."""

import os
import re
import signal
import threading
from collections.abc import Sequence
from typing import Self

from tests.support.forked import Piped
from tests.support.server_process import memory_of

STOP_TIMEOUT = 20.0


class GatewayProcess:
    """`jobledger-gateway` for the service at `target`. A context manager."""

    def __init__(self, target: str, arguments: Sequence[str] = ()) -> None:
        self._arguments = ["--target", target, "--listen", "127.0.0.1:0", *arguments]
        self.url = ""

    def __enter__(self) -> Self:
        self._process = Piped("jobledger-gateway", self._arguments, env=os.environ)
        said = []
        for line in self._process.stderr:
            said.append(line)
            if match := re.search(r'"serving", "url": "(\S+)"', line):
                self.url = match[1]
                # A pipe that nobody reads would block the gateway.
                threading.Thread(target=self._process.stderr.read, daemon=True).start()
                return self
        self.kill()
        raise AssertionError(f"the gateway does not serve: {''.join(said)}")

    @property
    def target(self) -> str:
        """Its HOST:PORT."""
        return self.url.rpartition("/")[2]

    @property
    def peak_memory(self) -> int:
        """The most bytes of memory that the process has held since its start."""
        return memory_of(self._process.pid, "VmHWM:")

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; return its exit code."""
        return self._process.wait(STOP_TIMEOUT)

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL)."""
        self._process.kill()
        self._process.communicate()

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT)
        finally:
            self.kill()
