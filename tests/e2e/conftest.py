"""The real server as a process: one for the whole session, and one for each test that stops it."""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import grpc
import pytest

from jobledger import Client
from jobledger_server.app import App
from tests.support.access_file import write_access_file
from tests.support.databases import empty_database
from tests.support.fault_server import FaultServer
from tests.support.server_process import ServerProcess


@pytest.fixture(params=["sqlite"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the test's own. `tests/integration/store` holds both to one meaning."""
    return empty_database(request, tmp_path)


@pytest.fixture
def start_with(
    start: Callable[..., Awaitable[App]], tmp_path: Path
) -> Callable[..., Awaitable[App]]:
    """Start the whole server in this process with the rules of an access file."""

    def start_with(rules: str, **options: object) -> Awaitable[App]:
        write_access_file(tmp_path / "access.toml", rules)
        return start(access=tmp_path / "access.toml", **options)

    return start_with


@pytest.fixture
async def channel(app: App) -> AsyncIterator[grpc.aio.Channel]:
    """Connect to the whole server in this process."""
    async with grpc.aio.insecure_channel(app.address) as channel:
        yield channel


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Return a server that all share: tests use owners and job types of their own."""
    with ServerProcess(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture
def own_server(tmp_path: Path, sqlite_template: Path) -> Iterator[ServerProcess]:
    """Return a server that may be killed. Its database is up to date: that saves half its start."""
    folder = tmp_path / "own_server"
    folder.mkdir()
    shutil.copy(sqlite_template, folder / "jobledger.db")
    with ServerProcess(folder) as process:
        yield process


@pytest.fixture
def ada(server: ServerProcess) -> Iterator[Client]:
    """Return a client of the user `ada`, whom other tests of the same server may use too."""
    with Client(server.target, user_id="ada") as client:
        yield client


@pytest.fixture
def fault_server() -> Iterator[FaultServer]:
    """Return a server that misbehaves on demand."""
    server = FaultServer()
    yield server
    server.stop()
