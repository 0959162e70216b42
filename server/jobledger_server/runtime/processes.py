"""Several processes that serve one port: started, supervised and drained together.

Each is a `jobledger-server serve` in a new interpreter. They are not forked, because gRPC
does not survive a fork. They share only the port and the database.
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

from jobledger_server.runtime.notify import report_ready
from jobledger_server.runtime.port import shared_port
from jobledger_server.runtime.signals import end_signals
from jobledger_server.settings import Settings

STEADY_SECONDS = 60.0
"""A process that exits after it has served for this long is restarted immediately."""

MAX_PAUSE_SECONDS = 30.0

log = logging.getLogger("jobledger.server")


def serve_with_processes(settings: Settings) -> int:
    """Serve with `settings.processes` processes until one of `end_signals`.

    Returns:
        The exit code: 0 if all processes have drained, else that of the first one that
        failed to drain, or failed to serve when the server was started.

    Raises:
        PortUnavailable: The address cannot be listened on.
    """
    with shared_port(settings.listen) as address:
        processes = _Processes(lambda number: _command(settings, address, number))
        return asyncio.run(processes.run(settings.processes, address))


def _command(settings: Settings, address: str, number: int) -> list[str]:
    # The same arguments and environment, then the child's own: the last value of an option wins.
    # -P: modules in the current folder are not imported.
    own = ["--listen", address, "--child", str(number)]
    for flag, listen in (
        ("--metrics", settings.metrics),
        ("--health", settings.health),
        ("--admin", settings.admin),
    ):
        if listen is not None and number > 1:
            host, _, port = listen.rpartition(":")
            if port != "0":  # with 0 each takes a free port anyway
                own += [flag, f"{host}:{int(port) + number - 1}"]
    return [sys.executable, "-P", "-m", "jobledger_server", *sys.argv[1:], *own]


def pause_before(restart: int) -> float:
    """Return the seconds to wait before a restart, by its number in a row: 0, 1, 2, 4 … 30."""
    return 0.0 if restart == 1 else min(2.0 ** min(restart - 2, 5), MAX_PAUSE_SECONDS)


@dataclass(frozen=True, slots=True)
class _Exit:
    """How a process exited. `served` is for how many seconds it served, None if it never did."""

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
        # The processes check their files by themselves, every half second.
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        for received in end_signals():
            loop.add_signal_handler(received, self._stop)
        async with asyncio.TaskGroup() as supervising:
            # The first one alone, so that an unusable setting is reported once.
            for numbers in ([1], range(2, count + 1)):
                await self._start(numbers, supervising)
            if not self._stopping.is_set():
                report_ready()
                log.info("serving", extra={"address": address, "processes": count})
        return self._exit_code

    def _stop(self) -> None:
        """Send SIGTERM to all processes, for each signal again."""
        self._stopping.set()
        for process in self._running.values():
            _terminate(process)

    async def _start(self, numbers: Iterable[int], supervising: asyncio.TaskGroup) -> None:
        """Start processes and wait until each serves, or all have to stop."""
        starting = []
        for number in numbers:
            starting.append(asyncio.Event())
            supervising.create_task(self._supervise(number, starting[-1]))
        for started in starting:
            await started.wait()

    async def _supervise(self, number: int, started: asyncio.Event) -> None:
        """Keep a process running until all have to stop."""
        restarts = 0
        while not self._stopping.is_set():
            ended = await self._run_once(number, started)
            if self._stopping.is_set():
                if ended.served is not None:  # else there was nothing to drain
                    self._record(ended.exit_code)
            elif not started.is_set():
                # It has logged why. The other processes and a restart would fail alike.
                self._record(ended.exit_code or 1)
                self._stop()
            else:
                restarts = 1 if (ended.served or 0.0) >= STEADY_SECONDS else restarts + 1
                pause = pause_before(restarts)
                facts = {"child": number, "pid": ended.pid, "exit_code": ended.exit_code}
                log.error("process_restarting", extra=facts | {"pause": pause})
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause)
        started.set()

    async def _run_once(self, number: int, started: asyncio.Event) -> _Exit:
        """Start a process and wait until it exits."""
        loop = asyncio.get_running_loop()
        parent_end, child_end = socket.socketpair()
        with parent_end:
            parent_end.setblocking(False)  # noqa: FBT003
            with child_end:
                try:
                    # In a process group of its own, because a terminal signals its whole group:
                    # the child receives signals from this process only.
                    process = await asyncio.create_subprocess_exec(
                        *self._command(number), stdin=child_end.fileno(), process_group=0
                    )
                except OSError as error:
                    facts = {"child": number, "cause": str(error)}
                    log.error("process_start_failed", extra=facts)  # noqa: TRY400
                    return _Exit(None, os.EX_OSERR, None)
            self._running[number] = process
            if self._stopping.is_set():
                _terminate(process)
            since = None
            if await loop.sock_recv(parent_end, 1):
                since = loop.time()
                started.set()
            exit_code = await process.wait()
            del self._running[number]
            served = None if since is None else loop.time() - since
            return _Exit(process.pid, exit_code, served)

    def _record(self, exit_code: int) -> None:
        """Keep the first exit code that is not 0. It is 128 + N if signal N killed the process."""
        self._exit_code = self._exit_code or (exit_code if exit_code >= 0 else 128 - exit_code)


def _terminate(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
