"""The processes of a measurement: started, given commands, and their use of the machine read."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psutil  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[1]

START_SECONDS = 120.0
POLL_SECONDS = 0.005

ANSWER_SECONDS = 600.0
"""How long a process of ours may take for one command before it counts as stuck."""


class BenchmarkError(Exception):
    """A measurement could not be made; the message says why."""


def start(
    command: Sequence[str],
    log: Path,
    serves: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server; return its process once it serves. Raises BenchmarkError."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    try:
        _wait_until(serves, process, log)
    except BaseException:
        end(process)
        raise
    return process


def _wait_until(serves: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not serves():
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchmarkError(f"{process.args!r} does not serve; its log:\n{_tail(log)}")
        time.sleep(POLL_SECONDS)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:]


@contextmanager
def running(
    command: Sequence[str],
    log: Path,
    serves: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    end_by: signal.Signals = signal.SIGKILL,
) -> Iterator[int]:
    """Run a server for as long as the block lasts; yield its process id once it serves."""
    process = start(command, log, serves, environment)
    try:
        yield process.pid
    except BenchmarkError:
        print(_tail(log), file=sys.stderr)  # it may say why
        raise
    finally:
        end(process, end_by)


def end(process: "subprocess.Popen[Any]", by: signal.Signals = signal.SIGKILL) -> None:
    process.send_signal(by)
    try:
        process.communicate(timeout=10)  # which closes its pipes too
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


class Generator:
    """A process that answers lines of JSON with lines of JSON. A context manager.

    Without a command it is a generator of load (load/__main__.py).

    Args:
        command: The command.
        environment: Variables that it has besides those of this process.
        tree: The tree in which it runs.
    """

    def __init__(
        self,
        command: Sequence[str] = (sys.executable, "-m", "benchmarks.load"),
        environment: Mapping[str, str] | None = None,
        tree: Path = ROOT,
    ) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=tree,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def begin(self, command: str, **arguments: Any) -> None:
        """Give it a command; `end` has the reply."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, Any]:
        """Wait for the reply. Raises BenchmarkError."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_SECONDS)
        if not ready:
            raise BenchmarkError(f"{self._process.args!r} does not answer")
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkError(f"{self._process.args!r} ended with {self._process.wait()}")
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
        end(self._process)


def all_do(generators: Sequence[Generator], command: str, **arguments: Any) -> list[dict[str, Any]]:
    """Have all of them do the same at the same time."""
    for generator in generators:
        generator.begin(command, **arguments)
    return [generator.end() for generator in generators]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def cpu_seconds(pid: int | None) -> float:
    """Return the processor time of a process and its children, of those that have ended too.

    By the kernel's own clock of each process, which counts nanoseconds; what psutil reads from
    /proc counts hundredths of a second.
    """
    if pid is None:
        return 0.0
    process = psutil.Process(pid)
    times = process.cpu_times()
    total: float = times.children_user + times.children_system
    for one in (process, *process.children(recursive=True)):
        with suppress(OSError):  # a child that has just ended
            total += time.clock_gettime(~one.pid << 3 | 2)
    return total


def resident_bytes(pid: int) -> int:
    resident: int = psutil.Process(pid).memory_info().rss
    return resident
