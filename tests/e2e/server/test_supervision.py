"""A server a part of which has ended by an error drains and ends; it does not live on deaf."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BROKEN = """
import asyncio
from {module} import {name}

async def broken(*_args, **_options):
    await asyncio.sleep(0.05)
    raise RuntimeError("broken on purpose")

{name}.{method} = broken
import sys
from jobledger_server.__main__ import main
sys.argv = ["jobledger-server", "serve", "--listen", "127.0.0.1:0", "--grace", "2"]
main()
"""


@pytest.mark.parametrize(
    ("module", "name", "method"),
    [
        ("jobledger_server.watch.tail", "Tail", "run"),
        ("jobledger_server.ledger.reaper", "Reaper", "run"),
        ("jobledger_server.ledger.retention", "Retention", "run"),
        ("jobledger_server.ledger.batcher", "Batcher", "_run_batches"),
        ("grpc.aio._server", "Server", "wait_for_termination"),
    ],
)
def test_a_part_that_ends_by_an_error_ends_the_server(
    tmp_path: Path, module: str, name: str, method: str
) -> None:
    program = BROKEN.format(module=module, name=name, method=method)
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 1, run.stderr
    lines = [json.loads(line) for line in run.stderr.splitlines() if line.startswith("{")]
    failed = [line for line in lines if line["event"] == "task_failed"]
    assert failed
    assert "broken on purpose" in failed[0]["exception"]
    assert [line["event"] for line in lines][-1] == "stopped"
    assert "Error: a part of the server ended by an unexpected error" in run.stderr
