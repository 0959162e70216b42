"""The processes of a measurement: started, told what to do, and their use of the machine read."""

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil  # type: ignore[import-untyped]

HERE = Path(__file__).parent

GENERATORS = 2
"""Processes that make the load together, where one would be the limit itself."""

ANSWER_SECONDS = 120.0
"""How long a process of ours may take for one command before it counts as stuck."""


class BenchmarkError(Exception):
    """A measurement could not be made; the message says why."""


class Generator:
    """A process that makes load: one of load/, which does as it is commanded (load/program.py)."""

    def __init__(self, program: str = "load.calls") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{program}"],
            cwd=HERE.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(self, command: str, **arguments: Any) -> None:
        """Tell it what to do; `end` has the reply."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        """Wait for the reply. Raises BenchmarkError."""
        line = read_line(self._process, "a load generator")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise BenchmarkError(f"a load generator failed:\n{reply['error']}")
        return reply

    def do(self, command: str, **arguments: Any) -> dict[str, Any]:
        self.begin(command, **arguments)
        return self.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._process)


def all_do(generators: Sequence[Generator], command: str, **arguments: Any) -> list[dict[str, Any]]:
    """Have all of them do the same at the same time."""
    for generator in generators:
        generator.begin(command, **arguments)
    return [generator.end() for generator in generators]


class BareServer:
    """A ceiling as a process: one of baseline/."""

    def __init__(
        self,
        *arguments: str,
        program: str = "baseline.server",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.{program}", *arguments],
            cwd=HERE.parent,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.target = read_line(self._process, "the bare server").strip()

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and its children, of those that have ended too.

    By the kernel's own clock of each process, which counts nanoseconds; what psutil reads from
    /proc counts hundredths of a second.
    """
    process = psutil.Process(pid)
    times = process.cpu_times()
    total: float = times.children_user + times.children_system
    for one in (process, *process.children(recursive=True)):
        with suppress(OSError):  # a child that has just ended
            total += time.clock_gettime(~one.pid << 3 | 2)
    return total


def listening_at(target: str, pid: int) -> list[int]:
    """Return which processes listen at a target: this one and its children, as far as they do."""
    port = int(target.rpartition(":")[2])
    process = psutil.Process(pid)
    return [
        one.pid
        for one in (process, *process.children())
        if any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for connection in one.net_connections(kind="tcp")
        )
    ]


def resident_bytes(pid: int) -> int:
    resident: int = psutil.Process(pid).memory_info().rss
    return resident


def read_line(process: subprocess.Popen[str], name: str) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], ANSWER_SECONDS)
    if not ready:
        raise BenchmarkError(f"{name} has not answered for {ANSWER_SECONDS:.0f} s")
    line = process.stdout.readline()
    if not line:
        raise BenchmarkError(f"{name} ended with exit code {process.wait()}")
    return line


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()  # which closes its pipes too
