"""A server drains and exits when one of its tasks fails, instead of running without it."""

import json
import os
from pathlib import Path

import pytest

from tests.support import forked

PROGRAM = """
import asyncio
import sys

import grpc
from jobledger_server.__main__ import main
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.maintenance.reaper import Reaper
from jobledger_server.maintenance.retention import Retention
from jobledger_server.watch.tail import Tail

async def broken(*_args, **_options):
    await asyncio.sleep(0.05)
    raise RuntimeError("broken on purpose")

def serving(*arguments, make=grpc.aio.server, **options):
    server = make(*arguments, **options)
    server.wait_for_termination = broken
    return server

{breaks}
sys.argv = ["jobledger-server", "serve", "--listen", "127.0.0.1:0", "--grace", "2"]
main()
"""


@pytest.mark.parametrize(
    "breaks",
    [
        "Tail.run = broken",
        "Reaper.run = broken",
        "Retention.run = broken",
        "Ledger.tasks = property(lambda _: (asyncio.create_task(broken()),))",
        "grpc.aio.server = serving",
    ],
)
def test_a_task_that_fails_stops_the_server(tmp_path: Path, breaks: str) -> None:
    program = PROGRAM.format(breaks=breaks)
    run = forked.run("python", program, cwd=tmp_path, env=dict(os.environ))
    assert run.returncode == 1, run.stderr
    lines = [json.loads(line) for line in run.stderr.splitlines() if line.startswith("{")]
    failed = [line for line in lines if line["event"] == "task_failed"]
    assert failed
    assert "broken on purpose" in failed[0]["exception"]
    assert [line["event"] for line in lines][-1] == "stopped"
    assert "Error: a part of the server failed with an unexpected error" in run.stderr
