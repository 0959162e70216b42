"""Several processes that serve one port: started, kept running, drained together.

Each is `jobledger-server serve` in an interpreter of its own, started anew and not
forked, because gRPC does not outlive a fork. They share nothing but the port and the
database, and know nothing of one another.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from jobledger_server.runtime.port import shared_port
from jobledger_server.settings import Settings

STEADY_SECONDS = 60.0
"""Who has served for so long and then ends is started again at once."""

LONGEST_PAUSE_SECONDS = 30.0

log = logging.getLogger("jobledger.server")


def serve_by_several(settings: Settings) -> int:
    """Serve by `settings.processes` processes until SIGTERM or SIGINT; return the exit code.

    0: all have drained. Else that of the first that has not, or that could not serve
    when the server was started. Raises PortUnavailable.
    """
    with shared_port(settings.listen) as address:
        processes = _Processes(lambda number: _command(settings, address, number))
        return asyncio.run(processes.run(settings.processes, address))


def _command(settings: Settings, address: str, number: int) -> list[str]:
    # The same words and the same environment, and then its own: the last word counts. Modules
    # that lie in the current folder are none of ours (-P).
    own = ["--listen", address, "--child", str(number)]
    if settings.metrics is not None and number > 1:
        host, _, port = settings.metrics.rpartition(":")
        if port != "0":  # any port that is free: each has another one anyway
            own += ["--metrics", f"{host}:{int(port) + number - 1}"]
    return [sys.executable, "-P", "-m", "jobledger_server", *sys.argv[1:], *own]


def pause_before(restart: int) -> float:
    """Return how many seconds to wait before the so-many-th restart in a row: 0, 1, 2, 4 … 30."""
    return 0.0 if restart == 1 else min(2.0 ** min(restart - 2, 5), LONGEST_PAUSE_SECONDS)


@dataclass(frozen=True, slots=True)
class _Life:
    """What came of one process. `served` is how many seconds it did, None if it never did."""

    pid: int | None
    exit_code: int
    served: float | None


class _Processes:
    def __init__(self, command: Callable[[int], Sequence[str]]) -> None:
        self._command = command
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._exit_code = 0

    async def run(self, count: int, address: str) -> int:
        loop = asyncio.get_running_loop()
        for received in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(received, self._stop)
        async with asyncio.TaskGroup() as keeping:
            # One alone at first, so that a setting that cannot be used is told once.
            for numbers in ([1], range(2, count + 1)):
                await self._start(numbers, keeping)
            if not self._stopping.is_set():
                log.info("serving", extra={"address": address, "processes": count})
        return self._exit_code

    def _stop(self) -> None:
        """Have all drain. Again with each signal: they get every one, as one alone would."""
        self._stopping.set()
        for process in self._running.values():
            _terminate(process)

    async def _start(self, numbers: Iterable[int], keeping: asyncio.TaskGroup) -> None:
        """Start these and wait until each serves, or all are to stop."""
        starting = []
        for number in numbers:
            starting.append(asyncio.Event())
            keeping.create_task(self._keep(number, starting[-1]))
        for started in starting:
            await started.wait()

    async def _keep(self, number: int, started: asyncio.Event) -> None:
        """Have one running until all are to stop."""
        restarts = 0
        while not self._stopping.is_set():
            life = await self._live(number, started)
            if self._stopping.is_set():
                if life.served is not None:  # else there was nothing to drain
                    self._note(life.exit_code)
            elif not started.is_set():
                # It has said why. Others would say the same, and so would the next one.
                self._note(life.exit_code or 1)
                self._stop()
            else:
                restarts = 1 if (life.served or 0.0) >= STEADY_SECONDS else restarts + 1
                pause = pause_before(restarts)
                facts = {"child": number, "pid": life.pid, "exit_code": life.exit_code}
                log.error("process_restarting", extra=facts | {"pause": pause})
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause)
        started.set()

    async def _live(self, number: int, started: asyncio.Event) -> _Life:
        """Start one and wait for its end."""
        loop = asyncio.get_running_loop()
        line, its_line = socket.socketpair()
        with line:
            line.setblocking(False)  # noqa: FBT003
            with its_line:
                try:
                    # A group of its own: what a terminal sends to all, it has from here alone.
                    process = await asyncio.create_subprocess_exec(
                        *self._command(number), stdin=its_line.fileno(), process_group=0
                    )
                except OSError as error:
                    facts = {"child": number, "cause": str(error)}
                    log.error("process_start_failed", extra=facts)  # noqa: TRY400
                    return _Life(None, os.EX_OSERR, None)
            self._running[number] = process
            if self._stopping.is_set():
                _terminate(process)
            since = None
            if await loop.sock_recv(line, 1):
                since = loop.time()
                started.set()
            exit_code = await process.wait()
            del self._running[number]
            served = None if since is None else loop.time() - since
            return _Life(process.pid, exit_code, served)

    def _note(self, exit_code: int) -> None:
        """Keep the first that is not 0; who was killed by signal N ends as 128 + N."""
        self._exit_code = self._exit_code or (exit_code if exit_code >= 0 else 128 - exit_code)


def _terminate(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
