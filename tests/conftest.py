"""Both databases, the store on them, and the whole server in this process over a real channel."""

import asyncio
import gc
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import FrameType

import grpc
import hypothesis
import pytest
import uvloop

from jobledger_server.app import App, open_app
from jobledger_server.check.invariants import violations
from jobledger_server.database.url import parse_url
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.settings import Settings
from jobledger_server.sql.database import Database, open_database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import Change, Store
from jobledger_server.tuning import Tuning
from jobledger_world.memory.store import MemoryStore
from tests.support import memory_invariants
from tests.support.databases import MEMORY, SIMULATED, NoOutages, empty_database, migrated
from tests.support.memory_store import memory_store
from tests.support.rpc_caller import Caller
from tests.support.seed import SEED, VARIABLE
from tests.support.shared_postgres import Administrator, Databases, shared_postgres
from tests.support.simulated_store import simulated_store

# The time to generate an example depends on how busy the machine is.
hypothesis.settings.register_profile(
    "jobledger", suppress_health_check=[hypothesis.HealthCheck.too_slow], deadline=None
)
hypothesis.settings.load_profile("jobledger")

# A shell without job control starts what runs in the background with SIGINT ignored, and nohup
# with SIGHUP. Every process that is started here would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_report_header() -> str:
    return f"seed: {SEED} ({VARIABLE}={SEED} repeats it)"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.option.hypothesis_seed = config.option.hypothesis_seed or str(SEED)


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run the server's parts on the loop that servers run on; it needs less time, too.

    Clients run on asyncio's, as most users' do. So does what patches its loop.
    """
    names = item.fixturenames
    if "database_url" in names and not {"timers", "frozen_heap"} & set(names):
        return {"uvloop": _uvloop}
    return {"asyncio": asyncio.new_event_loop}


def _uvloop() -> asyncio.AbstractEventLoop:
    """Make a loop that stops when the test's time is over: it loses what pytest-timeout raises."""
    loop, time_is_over = uvloop.new_event_loop(), signal.getsignal(signal.SIGALRM)
    if not callable(time_is_over):
        return loop

    def stop(number: int, frame: FrameType | None) -> None:
        loop.stop()
        time_is_over(number, frame)

    signal.signal(signal.SIGALRM, stop)
    return loop


def pytest_collection() -> None:
    """Collect no garbage among what is about to be frozen."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Leave what was collected out of garbage collections: each would go through all of it."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def postgres_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Administrator]:
    """The PostgreSQL of all processes of this run. A test that stops one makes its own."""
    folder = tmp_path_factory.getbasetemp()
    with shared_postgres(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) as own:
        yield own


@pytest.fixture
def postgres(postgres_cluster: Administrator) -> Iterator[Databases]:
    """Makes databases on PostgreSQL that are dropped after the test."""
    with Databases(postgres_cluster) as databases:
        yield databases


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("template") / "jobledger.db"
    file.touch(0o600)  # as a server creates it
    migrated(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def postgres_template(postgres_cluster: Administrator) -> Iterator[str]:
    with Databases(postgres_cluster) as databases:
        yield migrated(databases.create_database()).rpartition("/")[2]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the test's own, up to date and empty: once on each kind."""
    return empty_database(request, tmp_path)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The store's connections, for what a test reads or changes without the store."""
    database = open_database(parse_url(database_url))
    yield database
    await database.close()


@pytest.fixture
def tuning() -> Tuning:
    """A test that parametrizes it has another one."""
    return Tuning()


@pytest.fixture
async def _simulated_store(
    sqlite_template: Path, tmp_path: Path, tuning: Tuning
) -> AsyncIterator[Store]:
    async with simulated_store(shutil.copy(sqlite_template, tmp_path), tuning) as store:
        yield store


@pytest.fixture
def store(database_url: str, tuning: Tuning, request: pytest.FixtureRequest) -> Store:
    """The store on the database, or in memory; see `databases.run_in_memory_too`."""
    if database_url == MEMORY:
        return memory_store(tuning)
    if database_url == SIMULATED:
        return request.getfixturevalue("_simulated_store")
    return SqlStore(request.getfixturevalue("database"), tuning=tuning)


@pytest.fixture
def published() -> list[Change]:
    """What the ledger has published."""
    return []


@pytest.fixture
async def ledger(
    store: Store, published: list[Change], tuning: Tuning, request: pytest.FixtureRequest
) -> AsyncIterator[Ledger]:
    """A ledger on the store, which is sound at the end."""
    async with Ledger(store, published.extend, max_waiting=10_000, tuning=tuning) as ledger:
        ledger.outages = NoOutages()
        yield ledger
    if "damaged" in request.fixturenames:
        return
    if isinstance(store, MemoryStore):
        assert memory_invariants.violations(store.tables) == []
    else:
        assert await violations(request.getfixturevalue("database")) == []


@pytest.fixture
def damaged() -> None:
    """For a test that changes its database by hand: it need not be sound at the end."""


@pytest.fixture
async def start(
    database_url: str, tuning: Tuning, request: pytest.FixtureRequest
) -> AsyncIterator[Callable[..., object]]:
    """Start the whole server in this process, with the settings given; stopped at the end.

    Nobody calls it then, so it hardly waits for calls. Its database is sound afterwards.
    """
    tuning = replace(tuning, quiet_seconds=0.01)
    async with AsyncExitStack() as stack:

        async def start(**options: object) -> App:
            settings = Settings(
                **{"listen": "127.0.0.1:0", "database": database_url, "grace": 2.0, **options}
            )
            return await stack.enter_async_context(open_app(settings, tuning=tuning))

        yield start
    if "damaged" not in request.fixturenames:
        database = open_database(parse_url(database_url), seconds=None)
        try:
            assert await violations(database) == []
        finally:
            await database.close()


@pytest.fixture
async def app(start: Callable[..., object]) -> App:
    return await start()


@pytest.fixture
async def call(app: App) -> AsyncIterator[Caller]:
    """Calls the server over a real channel."""
    async with grpc.aio.insecure_channel(app.address) as channel:
        yield Caller(channel)


@pytest.fixture
async def timers(monkeypatch: pytest.MonkeyPatch) -> list[asyncio.TimerHandle]:
    """Every timer that is set at a time of the event loop, in their order."""
    loop = asyncio.get_running_loop()
    call_at = loop.call_at
    made: list[asyncio.TimerHandle] = []

    def noted(*arguments: object, **options: object) -> asyncio.TimerHandle:
        made.append(call_at(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(loop, "call_at", noted)
    return made
