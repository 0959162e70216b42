"""`serve --processes N`: one server for its callers, several processes for its operators."""

import asyncio
import json
import os
import signal
import socket
import struct
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from socket import AF_UNIX, SOCK_DGRAM
from typing import Any, Self

import grpc
import psutil  # type: ignore[import-untyped]
import pytest

from jobledger import CHANNEL_OPTIONS, AsyncClient
from jobledger_server.runtime.processes import pause_before
from tests.support.forked import Piped
from tests.support.ports import free_port
from tests.support.rpc_caller import COMPLETED, Caller, decoded, watching
from tests.support.server_process import run_server
from tests.support.shared_postgres import Administrator, Databases

PATIENCE = 60.0
"""For a line of a log."""

CREDENTIALS = struct.Struct("3i")
"""What SO_PASSCRED adds: the sender's process, user and group."""

ONE_SERVES = "process_serving"
OWN_CONNECTION = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]


class SeveralProcesses:
    """A server of two processes on a port of its own choice, and its log as it is written."""

    def __init__(self, database: str, *arguments: str, **environment: str) -> None:
        serve = ("serve", "--processes", "2", "--listen", "127.0.0.1:0", "--database", database)
        self.process = Piped(
            "jobledger-server", [*serve, *arguments], env={**os.environ, **environment}
        )
        self.lines: list[dict[str, Any]] = []

    def until(self, event: str, **facts: Any) -> dict[str, Any]:
        """Read the log up to a line of this event that has these facts, and return it."""
        with self._ended_at_last():
            for text in self.process.stderr:
                self.lines.append(json.loads(text))
                if {"event": event, **facts}.items() <= self.lines[-1].items():
                    return self.lines[-1]
        raise AssertionError(f"the log ends without {event!r}: {self.lines}")

    def until_all_have_ended(self) -> None:
        """Read the log to its end: each process has it open for as long as it lives."""
        with self._ended_at_last():
            self.lines += map(json.loads, self.process.stderr)

    @contextmanager
    def _ended_at_last(self) -> Iterator[None]:
        """End the log if it is still being read after so long: a thread cannot be interrupted."""
        end = threading.Timer(PATIENCE, self.process.kill)
        end.start()
        try:
            yield
        finally:
            end.cancel()

    def pid_of(self, child: int) -> int:
        """Return the id of the process that last served under this number."""
        serving = [line for line in self.lines if line["event"] == ONE_SERVES]
        return int([line["pid"] for line in serving if line["child"] == child][-1])

    def events_of(self, child: int) -> list[str]:
        return [line["event"] for line in self.lines if line.get("child") == child]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()  # the others end with it
        self.process.communicate()

    @property
    def target(self) -> str:
        return str(next(line["address"] for line in self.lines if line["event"] == "serving"))


async def connected(server: SeveralProcesses, child: int, stack: AsyncExitStack) -> Any:
    """Return a connection to this process, identified by its log line of a change."""
    while True:
        channel = grpc.aio.insecure_channel(server.target, options=OWN_CONNECTION)
        job = await Caller(channel).running()
        line = await asyncio.to_thread(server.until, "transition", job=job.id)
        if line["child"] == child:
            return await stack.enter_async_context(channel)
        await channel.close()


@pytest.fixture(scope="module")
def metrics_ports() -> tuple[int, int]:
    """Two ports, one after the other, that are free."""
    while True:
        port = free_port()
        with socket.socket() as second:
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port, port + 1


@pytest.fixture(scope="module")
def steady(
    postgres_cluster: Administrator, postgres_template: str, metrics_ports: tuple[int, int]
) -> Iterator[SeveralProcesses]:
    """A server for tests that leave it as it is."""
    with Databases(postgres_cluster) as databases:
        database = databases.create_database(postgres_template)
        with SeveralProcesses(database, "--metrics", f"127.0.0.1:{metrics_ports[0]}") as server:
            server.until("serving")
            if ONE_SERVES not in server.events_of(2):  # each process writes its own lines
                server.until(ONE_SERVES, child=2)
            yield server


@pytest.fixture
def database(postgres: Databases, postgres_template: str) -> str:
    return postgres.create_database(postgres_template)


@pytest.fixture
def server(database: str) -> Iterator[SeveralProcesses]:
    with SeveralProcesses(database) as server:
        yield server


def test_one_log_line_says_that_all_processes_serve(steady: SeveralProcesses) -> None:
    start = steady.lines[:3]
    # One alone at first: a setting that cannot be used is reported once. The order of the other
    # two lines is open: each process writes its own.
    first, *others = [(line["event"], line.get("child")) for line in start]
    assert first == (ONE_SERVES, 1)
    assert set(others) == {(ONE_SERVES, 2), ("serving", None)}
    assert {line["address"] for line in start} == {steady.target}
    assert {line.get("processes") for line in start} == {None, 2}


def test_systemd_hears_of_all_processes_once_and_from_the_parent(database: str) -> None:
    """A unit with `Type=notify` believes the process that it has started, and no other."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(AF_UNIX, SOCK_DGRAM) as systemd:
        systemd.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        systemd.bind(f"{folder}/notify")
        systemd.settimeout(PATIENCE)
        with SeveralProcesses(database, NOTIFY_SOCKET=f"{folder}/notify") as server:
            server.until("serving")
            heard, credentials, *_ = systemd.recvmsg(4096, 4096)
            pid, *_ = CREDENTIALS.unpack(credentials[0][2])
            assert (heard, pid) == (b"READY=1", server.process.pid)
            systemd.setblocking(False)  # noqa: FBT003
            with pytest.raises(BlockingIOError):
                systemd.recv(4096)


async def test_changes_through_one_process_reach_watches_of_another(
    steady: SeveralProcesses,
) -> None:
    async with AsyncExitStack() as stack:
        here = Caller(await connected(steady, 1, stack))
        there = Caller(await connected(steady, 2, stack))
        job = await here.running()
        async with watching(there.WatchJob(job_id=job.id, user_id="ada")) as stream:
            assert (await stream.read()).job == job
            # One after the other: changes that were not sent yet may be sent as one, and a
            # call starts when it is made, not when it is awaited.
            job = (
                await here.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": 50})
            ).job
            assert (await stream.read()).job == job
            job = (await here.MarkCompleted(job_id=job.id, attempt=1)).job
            assert (await stream.read()).job == job
            assert job.status == COMPLETED
            assert await stream.read() is grpc.aio.EOF


async def test_each_process_has_its_own_metrics(
    steady: SeveralProcesses, metrics_ports: tuple[int, int]
) -> None:
    def watches(port: int) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return next(line for line in lines if line.startswith('jobledger_watches{of="job"} '))

    async with AsyncExitStack() as stack:
        call = Caller(await connected(steady, 2, stack))
        job = await call.running()
        async with watching(call.WatchJob(job_id=job.id, user_id="ada")) as stream:
            await stream.read()
            figures = [await asyncio.to_thread(watches, port) for port in metrics_ports]
    assert figures == ['jobledger_watches{of="job"} 0.0', 'jobledger_watches{of="job"} 1.0']


def test_another_server_on_the_port_is_refused_with_an_explanation(
    steady: SeveralProcesses, database: str
) -> None:
    run = run_server("serve", "--listen", steady.target, "--database", database)
    assert run.returncode == 1
    assert run.stderr == (
        f"Error: cannot listen on {steady.target}: another server is running there, or it is not "
        "an address of this machine\n"
    )


def test_a_signal_during_startup_exits_with_0(server: SeveralProcesses) -> None:
    server.until(ONE_SERVES)
    while len(psutil.Process(server.process.pid).children()) < 2:
        time.sleep(0.005)  # then the other is there, and does not serve yet
    server.process.send_signal(signal.SIGINT)
    server.until_all_have_ended()
    assert server.process.wait() == 0
    assert "serving" not in [line["event"] for line in server.lines]


async def test_a_killed_process_is_replaced_without_an_error_and_sigterm_drains_them_all(
    server: SeveralProcesses,
) -> None:
    await asyncio.to_thread(server.until, "serving")
    async with AsyncExitStack() as stack:
        channels = [await connected(server, child, stack) for child in (1, 2)]
        killed = server.pid_of(1)
        made: list[str] = []
        replaced = asyncio.Event()

        async def create(channel: Any) -> None:
            async with AsyncClient(channel=channel, user_id="ada") as client:
                while not replaced.is_set():
                    made.append((await client.create_job("render")).id)
                    # As many as the processes can take would keep the new one from starting.
                    await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as creating:
            for channel in channels:
                creating.create_task(create(channel))
            while len(made) < 100:
                await asyncio.sleep(0.001)
            os.kill(killed, signal.SIGKILL)
            replacement = await asyncio.to_thread(server.until, ONE_SERVES, child=1)
            replaced.set()

        ended = next(line for line in server.lines if "exit_code" in line)
        assert ended["event"] == "process_restarting"
        assert (ended["child"], ended["pid"], ended["exit_code"]) == (1, killed, -signal.SIGKILL)
        assert replacement["pid"] != killed
        streams = []
        for child in (1, 2):
            call = Caller(await connected(server, child, stack))
            for job_id in made[:: len(made) // 20]:
                assert (await call.GetJob(job_id=job_id, user_id="ada")).job.id == job_id
            job = await call.running()
            streams.append(call.WatchJob(job_id=job.id, user_id="ada"))
            await streams[-1].read()
        server.process.send_signal(signal.SIGTERM)
        for stream in streams:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stream.read()
            assert decoded(caught.value).reason == "UNAVAILABLE"
    await asyncio.to_thread(server.until_all_have_ended)
    assert server.process.wait() == 0
    for child in (1, 2):
        assert server.events_of(child)[-2:] == ["draining", "stopped"]


def test_all_processes_exit_when_the_first_is_killed(server: SeveralProcesses) -> None:
    server.until("serving")
    server.process.kill()
    server.until_all_have_ended()
    for child in (1, 2):
        assert server.events_of(child) == [ONE_SERVES, "draining", "stopped"]
    host, _, port = server.target.rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


def test_a_setting_that_no_process_can_use_is_reported_once(database: str, tmp_path: Path) -> None:
    access = tmp_path / "access.toml"
    run = run_server("serve", "--processes", "2", "--database", database, "--access", str(access))
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"Error: cannot read the access file {access}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--processes", "2"), "an SQLite file is for one process"),
        (
            ("--processes", "2", "--database", "postgresql://u@h/n", "--listen", "unix:/a:b"),
            "several processes share a port, not a socket file",
        ),
    ],
)
def test_settings_that_several_processes_cannot_share_are_refused(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    run = run_server("serve", "--database", f"sqlite:///{tmp_path}/x.db", *arguments)
    assert run.returncode == 2
    assert words in run.stderr
    assert not list(tmp_path.iterdir())


def test_a_process_that_keeps_failing_is_restarted_with_growing_pauses() -> None:
    pauses = [pause_before(restart) for restart in range(1, 9)]
    assert pauses == [0, 1, 2, 4, 8, 16, 30, 30]
    assert pause_before(100_000) == 30
