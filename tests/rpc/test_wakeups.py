"""How gRPC works in a server's process: how it wakes the event loop, and on which threads."""

import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from jobledger.v1.job_service_pb2 import GetJobRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from jobledger_server.wakeups import waking_by_pipe
from server_process import ServerProcess

PROGRAM = """
import asyncio
import os
import signal
import sys

import grpc
import uvloop

from jobledger_server import wakeups
from jobledger_server.__main__ import _serve
from jobledger_server.config import Settings

folder = sys.argv[1]
reads = []
recv = wakeups._End.recv


def noted(self, size):
    data = recv(self, size)
    reads.append(len(data))
    return data


wakeups._End.recv = noted


async def main():
    address = f"unix:{folder}/socket"
    settings = Settings(listen=address, database=f"sqlite:///{folder}/jobledger.db")
    serving = asyncio.create_task(_serve(settings))
    while not os.path.exists(f"{folder}/socket"):
        await asyncio.sleep(0.01)
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary("/else.Where/DoMagic")
        calls = [call(b"") for _ in range(500)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {answer.code() for answer in answers} == {grpc.StatusCode.UNIMPLEMENTED}
    os.kill(os.getpid(), signal.SIGTERM)
    await serving


uvloop.run(main())
print(len(reads), sum(reads))
"""


def test_one_wakeup_of_a_server_is_for_all_events_that_are_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    wakeups, events = map(int, done.stdout.split())
    assert events >= 500 * 2  # of each call at least that it came and that it was answered
    assert wakeups < events


def test_the_pipe_is_asked_for_where_a_loop_runs() -> None:
    """Else gRPC would make a loop by itself, which would wake by the pipe and never run."""
    with pytest.raises(RuntimeError), waking_by_pipe():
        pass


CALLS = 500


def test_a_server_answers_without_the_threads_of_the_event_engine(tmp_path: Path) -> None:
    """Each message would pass through one of them on its way, and wake it."""
    with ServerProcess(tmp_path) as server, grpc.insecure_channel(server.target) as channel:
        stub = JobServiceStub(channel)
        before = _wakeups_of_event_engine(server.pid)
        for _ in range(CALLS):
            with pytest.raises(grpc.RpcError):
                stub.GetJob(GetJobRequest(job_id="none", user_id="ada"))
        after = _wakeups_of_event_engine(server.pid)
    assert after - before < CALLS / 2


def _wakeups_of_event_engine(pid: int) -> int:
    """Return how often the threads of that name have waited for something."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        if (thread / "comm").read_text().startswith("event_engine"):
            status = (thread / "status").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in status if line.startswith("voluntary_"))
    return total
