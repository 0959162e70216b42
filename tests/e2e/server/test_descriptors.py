"""The limit of open files: raised at the start, and partly reserved for other uses."""

import subprocess
import sys
from pathlib import Path

import grpc

from jobledger_server.runtime.descriptors import RESERVED
from tests.support.ports import free_port

PROGRAM = """
import resource
from jobledger_server.runtime.descriptors import connections_allowed, raise_descriptor_limit
raise_descriptor_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], connections_allowed(500))
"""


def limits_under(ulimit: str) -> tuple[int, int]:
    """Return the limit of open files and of connections after a start under a shell's limits."""
    command = ["sh", "-c", f'{ulimit} && exec "$@"', "sh", sys.executable, "-c", PROGRAM]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    soft, allowed = map(int, run.stdout.split())
    return soft, allowed


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    assert limits_under("ulimit -S -n 200 && ulimit -H -n 1000") == (1000, 500)


def test_file_descriptors_are_reserved_for_other_uses_than_connections() -> None:
    assert limits_under("ulimit -n 400") == (400, 400 - RESERVED)
    assert limits_under("ulimit -n 200") == (200, 100)


def test_a_server_runs_without_standard_files(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("jobledger-server")
    listen = f"127.0.0.1:{free_port()}"
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", program, "serve", "--listen", listen]
    with subprocess.Popen(closed, cwd=tmp_path) as server:
        try:
            with grpc.insecure_channel(listen) as channel:
                grpc.channel_ready_future(channel).result(30)
            server.terminate()
            assert server.wait(30) == 0
        finally:
            server.kill()
