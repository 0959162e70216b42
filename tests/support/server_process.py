"""The real server as a process of its own, which can be killed and started again.

with ServerProcess(directory) as server:
    Client(server.target, user_id="ada")
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support import forked
from tests.support.forked import Forked
from tests.support.ports import free_port

MIB = 2**20

MANY_STREAMS = ("--max-streams", "1024")
"""Arguments of a server behind a proxy that puts all callers on one connection: what one attacker
does there is what many do."""

START_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0


def run_server(
    *arguments: str, cwd: Path | None = None, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run `jobledger-server` to its end."""
    return forked.run("jobledger-server", *arguments, cwd=cwd, env={**os.environ, **environment})


def memory_of(pid: int, name: str) -> int:
    """Return how many bytes of memory a process holds (VmRSS:), or has held at most (VmHWM:)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    lines = (line.split() for line in status.splitlines())
    return next(int(words[1]) * 1024 for words in lines if words[0] == name)


class ServerProcess:
    """`jobledger-server serve` on one port and one database, through all its restarts.

    A context manager, sync or async. All methods block; in async tests call them
    through `asyncio.to_thread` if other tasks have to run at the same time.
    """

    def __init__(
        self,
        directory: Path,
        *,
        database: str | None = None,
        database_file: Path | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        descriptors: int | None = None,
    ) -> None:
        self.port = free_port()
        self.target = f"127.0.0.1:{self.port}"
        self.database = database or f"sqlite:///{directory / 'jobledger.db'}"
        by_url = ("--database", self.database)
        self._database = by_url if database_file is None else ("--database-file", database_file)
        self.log = directory / "server.log"
        self._arguments = list(arguments)
        self._credentials = credentials
        limit = f'ulimit -n {descriptors} && exec "$@"'
        self._limit = [] if descriptors is None else ["sh", "-c", limit, "sh"]
        self._environment = {**os.environ, **(environment or {})}
        self.version: Path | None = None
        """The folder with the packages of another version, which the next start is to run."""

        self._process: subprocess.Popen[bytes] | Forked | None = None

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def peak_memory(self) -> int:
        """The most bytes of memory that the process has held since its start."""
        return memory_of(self.pid, "VmHWM:")

    @property
    def memory(self) -> int:
        """The bytes of memory that the process holds."""
        return memory_of(self.pid, "VmRSS:")

    def start(self) -> None:
        """Start the process and wait until its health service says SERVING."""
        serve = ["serve", "--listen", self.target, *map(str, self._database), *self._arguments]
        with self.log.open("ab") as log, Path(os.devnull).open("rb") as nothing:
            if self._limit or self.version:
                program = str(Path(sys.executable).with_name("jobledger-server"))
                command = [*self._limit, program, *serve]
                packages = {"PYTHONPATH": str(self.version)} if self.version else {}
                self._process = subprocess.Popen(
                    command,
                    stdin=nothing,
                    stdout=log,
                    stderr=log,
                    env={**self._environment, **packages},
                )
            else:
                files = (nothing, log, log)
                self._process = Forked(
                    "jobledger-server", serve, files=files, env=self._environment
                )
        try:
            self._wait_until_serving()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End the process as a power cut would (SIGKILL). Does nothing to a dead one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def terminate(self) -> int:
        """Ask the process to drain and stop (SIGTERM); wait for it and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def signal(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    def wait(self) -> int:
        """Wait for the end of a process that was asked to stop; return its exit code."""
        code = self._running().wait(STOP_TIMEOUT)
        self._process = None
        return code

    def restart(self) -> None:
        """Kill the process and start another one on the same port and database."""
        self.kill()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.kill)

    def _running(self) -> subprocess.Popen[bytes] | Forked:
        assert self._process is not None, "the server is not running"
        return self._process

    def _channel(self, options: Sequence[tuple[str, int]]) -> grpc.Channel:
        if self._credentials is None:
            return grpc.insecure_channel(self.target, options)
        return grpc.secure_channel(self.target, self._credentials, options)

    def _wait_until_serving(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        # Its own subchannel: the global pool would hand the next channel to this
        # target the connection backoff of this one.
        options = [
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 200),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        with self._channel(options) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while self._running().poll() is None and time.monotonic() < deadline:
                with contextlib.suppress(grpc.RpcError):
                    answer = health.Check(
                        health_pb2.HealthCheckRequest(), timeout=0.5, wait_for_ready=True
                    )
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
        code = self._running().poll()
        state = "still runs" if code is None else f"exited with {code}"
        log = self.log.read_text(errors="replace")[-4000:]
        raise AssertionError(f"the server is not SERVING ({state}); its log:\n{log}")
