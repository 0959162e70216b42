"""What a server tells gRPC by its environment, as the command starts it."""

import time
from collections.abc import Mapping
from pathlib import Path

import grpc
import pytest

from jobledger.v1.job_service_pb2 import GetJobRequest
from jobledger.v1.job_service_pb2_grpc import JobServiceStub
from tests.support.server_process import ServerProcess

CALLS = 500


def test_a_server_answers_without_the_threads_of_the_event_engine(tmp_path: Path) -> None:
    """Each message would pass through one of them on its way, and wake it."""
    assert _wakeups_by_calls(tmp_path, {}) < CALLS / 2


def test_whoever_starts_it_may_say_otherwise(tmp_path: Path) -> None:
    environment = {"GRPC_EXPERIMENTS": "event_engine_listener"}
    assert _wakeups_by_calls(tmp_path, environment) > CALLS


def _wakeups_by_calls(folder: Path, environment: Mapping[str, str]) -> int:
    """Return how often calls woke these threads of a server: more often than time alone does."""
    server = ServerProcess(folder, environment=environment)
    with server, grpc.insecure_channel(server.target) as channel:
        stub = JobServiceStub(channel)
        began, before = time.monotonic(), _wakeups_of_event_engine(server.pid)
        for _ in range(CALLS):
            with pytest.raises(grpc.RpcError):
                stub.GetJob(GetJobRequest(job_id="none", user_id="ada"))
        took, after = time.monotonic() - began, _wakeups_of_event_engine(server.pid)
        time.sleep(took)
        by_time = _wakeups_of_event_engine(server.pid) - after
        return after - before - by_time


def _wakeups_of_event_engine(pid: int) -> int:
    """Return how often the threads of that name have waited for something."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        if (thread / "comm").read_text().startswith("event_engine"):
            status = (thread / "status").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in status if line.startswith("voluntary_"))
    return total
