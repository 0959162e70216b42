"""A server that is started while its database is away."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.databases import migrated, several_servers
from tests.support.ports import free_port
from tests.support.postgres_server import PostgresServer
from tests.support.rpc_caller import Caller
from tests.support.server_process import ServerProcess, run_server
from tests.support.shared_postgres import Databases
from tests.support.silent_host import SilentHost

WAITING, ANSWERS = "waiting_for_database", "database_answers"


@pytest.fixture(scope="module")
def postgres_of_its_own() -> Iterator[PostgresServer]:
    server = PostgresServer(durable=False)
    yield server
    server.close()


def logged(server: ServerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.read_text().splitlines()]


@asynccontextmanager
async def started_without_database(server: ServerProcess) -> AsyncIterator[asyncio.Task[None]]:
    """Start a server and wait until it says that it waits. The task ends when it serves."""
    starting = asyncio.create_task(asyncio.to_thread(server.start))
    try:
        async with asyncio.timeout(30):
            while not server.log.exists() or WAITING not in server.log.read_text():
                if starting.done():
                    await starting  # raises
                await asyncio.sleep(0.02)
        yield starting
    finally:
        await asyncio.wait([starting])
        server.kill()


async def test_a_server_waits_for_a_database_that_starts_later(
    postgres_of_its_own: PostgresServer, tmp_path: Path
) -> None:
    postgres = postgres_of_its_own
    url = await asyncio.to_thread(migrated, postgres.create_database())
    postgres.stop()
    server = ServerProcess(tmp_path, database=url)
    async with started_without_database(server) as starting:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        await asyncio.to_thread(postgres.start)
        await starting
        async with grpc.aio.insecure_channel(server.target) as channel:
            assert (await Caller(channel).job()).id
    events = [line["event"] for line in logged(server)]
    assert events[:3] == [WAITING, ANSWERS, "serving"]
    waiting, answers, *_ = logged(server)
    assert "Connect" in waiting["cause"]
    assert (waiting["limit"], waiting["level"], answers["level"]) == (60.0, "warning", "info")


@pytest.mark.slow
async def test_a_server_waits_for_a_standby_to_take_over(
    postgres_of_its_own: PostgresServer, tmp_path: Path
) -> None:
    url = await asyncio.to_thread(migrated, postgres_of_its_own.create_database())
    standby = await asyncio.to_thread(
        lambda: PostgresServer(durable=False, primary=postgres_of_its_own)
    )
    try:
        database = f"postgresql://u@127.0.0.1:{standby.port}/{url.rpartition('/')[2]}"
        server = ServerProcess(tmp_path, database=database)
        async with started_without_database(server) as starting:
            await asyncio.to_thread(standby.promote)
            await starting
    finally:
        standby.close()
    events = [line["event"] for line in logged(server)]
    assert events[:3] == [WAITING, ANSWERS, "serving"]


async def test_a_server_that_waits_ends_at_once_when_it_is_asked_to(tmp_path: Path) -> None:
    """Also while a host has taken the connection, and says nothing."""
    async with SilentHost() as silent:
        hosts = f"127.0.0.1:{free_port()},{silent.address}"
        database = f"postgresql://u@{hosts}/n?target_session_attrs=read-write"
        server = ServerProcess(
            tmp_path, database=database, arguments=["--database-wait", "1d", "--processes", "2"]
        )
        async with started_without_database(server) as starting:
            server.signal(signal.SIGTERM)
            with pytest.raises(AssertionError, match="exited with 0"):
                await starting
    (line,) = logged(server)
    assert (line["event"], line["child"]) == (WAITING, 1)


def test_a_server_fails_when_its_database_was_away_for_too_long(tmp_path: Path) -> None:
    url = f"postgresql://u:secret@127.0.0.1:{free_port()}/n"
    for wait, events in (("0.1", [WAITING]), ("0", [])):
        done = run_server("serve", "--database", url, "--database-wait", wait, cwd=tmp_path)
        *lines, last = done.stderr.splitlines()
        assert [json.loads(line)["event"] for line in lines] == events
        shown = url.replace("secret", "***")
        assert last.startswith(f"Error: cannot use the database {shown}: ")
        assert (done.returncode, "secret" in done.stderr) == (1, False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("//u@", "//nobody@"), 'role "nobody" does not exist'),
        (("/test_", "/missing_"), 'database "missing_'),
        (("/test_", "/test_"), "the database is at revision none"),
        (("?", "?sslmode=verify-full&sslrootcert=/none&"), "cannot use sslrootcert=/none"),
    ],
)
def test_a_server_does_not_wait_for_what_only_a_person_can_mend(
    postgres: Databases, tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    url = f"{postgres.create_database()}?target_session_attrs=primary".replace(*change)
    done = run_server("serve", "--database", url, "--database-wait", "1d", cwd=tmp_path)
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert words in line
    assert done.returncode == 1


@several_servers
async def test_a_server_starts_although_the_first_host_of_its_url_is_silent(
    database_url: str, tmp_path: Path
) -> None:
    address, _, name = database_url.partition("@")[2].partition("/")
    async with SilentHost() as silent:
        url = f"postgresql://u@{silent.address},{address}/{name}?target_session_attrs=read-write"
        async with (
            ServerProcess(tmp_path, database=url) as server,
            grpc.aio.insecure_channel(server.target) as channel,
        ):
            assert (await Caller(channel).job()).id
        assert silent.opened > 0
    assert WAITING not in {line["event"] for line in logged(server)}
