"""A whole run: replicas over one PostgreSQL, or a server with SQLite. Gives a history."""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from jobledger_server.database.url import parse_url
from jobledger_server.domain.limits import MIN_JOB_OUTPUT_BYTES
from jobledger_server.sql.database import open_database
from tests.checker.faults import KINDS, Nemesis, Plant
from tests.checker.history import History
from tests.checker.inspector import inspecting
from tests.checker.load import Load, Size
from tests.support.postgres_server import PostgresServer
from tests.support.proxy import Proxy
from tests.support.server_process import ServerProcess

# So that jobs write more than is stored.
SERVER_ARGUMENTS = ("--heartbeat", "1", "--job-output", f"{MIN_JOB_OUTPUT_BYTES // 1024}KiB")

LONG_RUN_SECONDS = 60.0
"""From here on there is time for longer failures, and for the end of one before the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run. The seed decides what clients do and what fails, but not the exact times.

    `servers` is how many there are over PostgreSQL, `faults` what is broken.
    `logs` is a folder for the logs of the servers, which are deleted otherwise.
    """

    seed: int
    duration: float
    size: Size = field(default_factory=Size)
    servers: int = 3
    faults: Sequence[str] = KINDS
    sqlite: bool = False
    server_arguments: Sequence[str] = ()
    logs: Path | None = None


async def run(options: Options) -> History:
    """Load the replicas and break things for `duration` seconds; return what was recorded.

    Ends when every job has ended and every watcher has heard of it, or should have.
    """
    async with AsyncExitStack() as stack:
        plant = await stack.enter_async_context(_plant(options))
        targets = [proxy.target for proxy in plant.proxies]
        load = Load(targets, options.seed, options.size)
        load.history.job_output = MIN_JOB_OUTPUT_BYTES
        database = open_database(parse_url(plant.database), seconds=None)
        inspector = await stack.enter_async_context(inspecting(database, load.history))
        hurry = options.duration < LONG_RUN_SECONDS
        nemesis = Nemesis(
            plant,
            load.history,
            load.rng("nemesis"),
            longest=1.2 if hurry else 4.0,
            calm=(0.5, 1.0) if hurry else (1.5, 3.0),
            look=inspector.look,
            kinds=options.faults,
        )
        async with load.running():
            end = time.monotonic() + options.duration
            if options.faults:
                await nemesis.run(end)
            await asyncio.sleep(max(0.0, end - time.monotonic()))
        return load.history


@asynccontextmanager
async def _plant(options: Options) -> AsyncIterator[Plant]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jobledger-run-")))
        postgres = None
        database = f"sqlite:///{folder / 'jobledger.db'}"
        if not options.sqlite:
            postgres = await asyncio.to_thread(PostgresServer)
            stack.callback(postgres.close)
            database = await asyncio.to_thread(postgres.create_database)
        await asyncio.to_thread(_migrate, database)
        servers, proxies = [], []
        for number in range(1 if options.sqlite else options.servers):
            home = (options.logs or folder) / f"replica-{number}"
            home.mkdir(parents=True)
            server = ServerProcess(
                home,
                database=database,
                arguments=(*SERVER_ARGUMENTS, *options.server_arguments),
            )
            stack.callback(server.kill)
            servers.append(server)
            proxies.append(await stack.enter_async_context(Proxy(server.target)))
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers))
        yield Plant(postgres, database, servers, proxies)


def _migrate(database: str) -> None:
    program = str(Path(sys.executable).with_name("jobledger-server"))
    subprocess.run([program, "migrate", "--database", database], check=True, capture_output=True)
