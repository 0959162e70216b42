"""Two servers over one PostgreSQL are replaced one by one under load, forward and back."""

import asyncio
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import uvloop

from tests.checker.history import Fault, History
from tests.checker.judge.validate import judge
from tests.checker.load import Load, Size
from tests.checker.summary import describe, summarize
from tests.support.next_version import NextVersion, run_migrate
from tests.support.postgres_server import PostgresServer
from tests.support.seed import SEED
from tests.support.server_process import ServerProcess

BEFORE = os.environ.get("JOBLEDGER_VERSION_BEFORE")
"""A folder with a released version of `jobledger` and `jobledger-server`, as `pip install --no-deps
--target` makes it. By default this version is the one before, and the next one has migrations that
no release will have."""

SMALL = Size(
    rate=160, writers=3, workers=3, stream_workers=3, job_watchers=4, abandoned=0.0, deaths=0.0
)

REPLACED = "replaced"

BETWEEN = 150
"""Operations between two replacements."""


class Rollout:
    """Two servers over one database, which are replaced under load."""

    def __init__(self, folder: Path, database: str) -> None:
        self.servers = []
        for name in "ab":
            (folder / name).mkdir()
            arguments = ("--heartbeat", "1")
            server = ServerProcess(folder / name, database=database, arguments=arguments)
            self.servers.append(server)
        self.load = Load([server.target for server in self.servers], SEED, SMALL)

    async def start(self, version: Path | None) -> None:
        for server in self.servers:
            server.version = version
            await asyncio.to_thread(server.start)

    async def replace(self, version: Path | None, *, crash: bool = False) -> None:
        """Replace the servers by those of a version, one by one. The load goes on."""
        for number, server in enumerate(self.servers):
            fault = Fault(REPLACED, time.monotonic(), replicas=frozenset({number}))
            self.load.history.faults.append(fault)
            await asyncio.to_thread(server.kill if crash else server.terminate)
            server.version = version
            await asyncio.to_thread(server.start)
            fault.ended = fault.recovers_from = time.monotonic()
            done = len(self.load.history.operations) + BETWEEN
            while len(self.load.history.operations) < done:
                await asyncio.sleep(0.05)

    def close(self) -> None:
        for server in self.servers:
            server.kill()


async def rehearse(folder: Path, before: Path | None, after: Path | None) -> History:
    async with AsyncExitStack() as stack:
        postgres = PostgresServer(durable=False)
        stack.callback(postgres.close)
        database = postgres.create_database()
        assert run_migrate(database, before)[0] == 0
        rollout = Rollout(folder, database)
        stack.callback(rollout.close)
        await rollout.start(before)
        async with rollout.load.running():
            migrated = await asyncio.to_thread(run_migrate, database, after)
            assert migrated[0] == 0, migrated
            await rollout.replace(before, crash=True)
            await rollout.replace(after)
            await rollout.replace(before)
            migrated = await asyncio.to_thread(run_migrate, database, before)
            assert migrated[0] == 0, migrated
            await rollout.replace(after)
        return rollout.load.history


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_servers_are_replaced_by_the_next_version_and_back_without_a_broken_promise(
    tmp_path: Path,
) -> None:
    if BEFORE is None:
        before, after = None, NextVersion(tmp_path / "next").folder
    else:
        before, after = Path(BEFORE), None
    history = uvloop.run(rehearse(tmp_path, before, after))
    violations, summary = judge(history), summarize(history)
    found = describe(summary, violations)
    assert not any(violations.values()), found
    assert summary.faults[REPLACED] == 8, found
    assert summary.deliveries > summary.changes > 8 * BETWEEN / 2, found
