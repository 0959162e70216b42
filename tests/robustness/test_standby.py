"""PostgreSQL as operators run it: a standby that takes over, and dumps under load."""

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import asyncpg
import grpc
import pytest

from jobledger import AsyncClient, JobStatus
from jobledger_server.app import App, OpenedStore, open_app
from jobledger_server.database.url import parse_url
from jobledger_server.settings import Settings
from jobledger_server.sql.database import open_database
from jobledger_server.sql.postgresql.notifications import Notifications
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import StoreUnavailable
from jobledger_server.watch.tail import FAILOVER
from tests.support.databases import migrated
from tests.support.postgres_server import PostgresServer
from tests.support.proxy import Proxy
from tests.support.rpc_caller import PROCESSING, Caller

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

WRITERS = 8


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def other() -> Iterator[PostgresServer]:
    server = PostgresServer(durable=False)
    yield server
    server.close()


class Written:
    """What writers were answered: jobs that they finished, and how many they did in all."""

    def __init__(self) -> None:
        self.jobs: set[str] = set()
        self.writers: Sequence[asyncio.Task[None]] = ()
        self._more = asyncio.Event()

    def add(self, job_id: str) -> None:
        self.jobs.add(job_id)
        self._more.set()

    async def until(self, count: int) -> None:
        """Wait until that many more were answered than now."""
        count += len(self.jobs)
        while len(self.jobs) < count:
            self._more.clear()
            more = asyncio.create_task(self._more.wait())
            await asyncio.wait([more, *self.writers], return_when=asyncio.FIRST_COMPLETED)
            more.cancel()
            for writer in self.writers:
                assert not writer.done(), writer.exception()


@asynccontextmanager
async def writing(app: App) -> AsyncIterator[Written]:
    """Run jobs from creation to completion during the block, and start over after an error."""
    written, run = Written(), uuid.uuid4()

    async def write(call: Caller, number: int) -> None:
        for count in itertools.count():
            try:
                job = await call.job(request_id=f"{run}-{number}-{count}")
                await call.TransitionJob(job_id=job.id, target_status=PROCESSING, worker_id="w")
                await call.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": 50})
                await call.MarkCompleted(job_id=job.id, attempt=1)
                written.add(job.id)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.05)  # the database is unavailable

    async with grpc.aio.insecure_channel(app.address) as channel:
        writers = [asyncio.create_task(write(Caller(channel), n)) for n in range(WRITERS)]
        written.writers = writers
        try:
            yield written
        finally:
            for writer in writers:
                writer.cancel()
            await asyncio.wait(writers)


def through(proxy: Proxy, url: str) -> str:
    return f"postgresql://u@{proxy.target}/{url.rpartition('/')[2]}"


class Watch:
    """A watch of all jobs that lists them again where its token is refused."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._gap = False
        self.listed_again = asyncio.Event()
        self._ended: set[str] = set()
        self._news = asyncio.Event()

    def _told_of_a_gap(self, _error: Exception) -> None:
        self._gap = True

    async def until_ended(self, job_ids: set[str]) -> None:
        """Wait until the watch was sent the ends of these jobs."""
        while not job_ids <= self._ended:
            self._news.clear()
            await self._news.wait()

    async def run(self) -> None:
        async with self._client.watch_jobs(on_gap=self._told_of_a_gap) as events:
            async for event in events:
                if event.job is not None and event.job.status is JobStatus.COMPLETED:
                    self._ended.add(event.job.id)
                    self._news.set()
                if event.synced and self._gap:
                    self.listed_again.set()


LOST = """
SELECT count(*) FROM jobs LEFT JOIN changes ON changes.seq = jobs.change_seq
    AND changes.job_id = jobs.id WHERE changes.seq IS NULL
"""
"""Counts the jobs whose latest change is not in the feed."""


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def replicate_synchronously(url: str) -> None:
    """Have commits wait for the standby from now on. The standby itself has no such setting."""
    await execute(
        url, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"
    )


async def test_a_failover_to_a_synchronous_standby_loses_no_acknowledged_change(
    primary: PostgresServer,
) -> None:
    url = await asyncio.to_thread(migrated, primary.create_database())
    standby = await asyncio.to_thread(lambda: PostgresServer(primary=primary))
    try:
        await replicate_synchronously(url)
        async with Proxy(f"127.0.0.1:{primary.port}") as proxy:
            settings = Settings(listen="127.0.0.1:0", database=through(proxy, url), grace=2.0)
            async with open_app(settings) as app, AsyncClient(app.address, user_id="ada") as client:
                watch = Watch(client)
                watching = asyncio.create_task(watch.run())
                async with writing(app) as written:
                    await written.until(100)
                    primary.kill()
                    proxy.redirect(standby.port)
                    await asyncio.to_thread(standby.promote)
                    await watch.listed_again.wait()
                    before = set(written.jobs)
                    await written.until(100)
                await watch.until_ended(written.jobs - before)
                watching.cancel()
                await asyncio.wait([watching])
                for job_id in written.jobs:
                    assert (await client.get_job(job_id)).status is JobStatus.COMPLETED
    finally:
        standby.close()


@asynccontextmanager
async def hasty(url: str) -> AsyncIterator[OpenedStore]:
    """Open a database whose statements may take a second."""
    database = open_database(parse_url(url), seconds=1)
    try:
        yield OpenedStore(SqlStore(database), notices=partial(Notifications, parse_url(url)))
    finally:
        await database.close()


ATTEMPTS = 3


async def answered(call: Callable[[], Awaitable[object]]) -> bool:
    """Repeat a call until it is answered; return False if each of some attempts is refused."""
    for _ in range(ATTEMPTS):
        try:
            await call()
        except StoreUnavailable:
            continue
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        else:
            return True
    return False


@pytest.mark.parametrize("primary_then", ["stays", "crashes and starts again"])
async def test_a_change_that_no_standby_has_is_not_acknowledged_and_not_sent_to_watchers(
    primary: PostgresServer, primary_then: str
) -> None:
    """Callers repeat what is refused. Then a standby takes over that has nothing of it."""
    url = await asyncio.to_thread(migrated, primary.create_database())
    standby = await asyncio.to_thread(lambda: PostgresServer(primary=primary))
    told: list[JobStatus] = []
    completed = asyncio.Event()

    async def watch(client: AsyncClient, job_id: str) -> None:
        async with client.watch(job_id) as changes:
            async for change in changes:
                told.append(change.job.status)
                if change.job.status is JobStatus.COMPLETED:
                    completed.set()

    try:
        await replicate_synchronously(url)
        async with Proxy(f"127.0.0.1:{primary.port}") as proxy:
            settings = Settings(listen="127.0.0.1:0", grace=2.0)
            async with (
                hasty(through(proxy, url)) as of_app,
                hasty(through(proxy, url)) as of_other,
                open_app(settings, store=of_app) as app,
                open_app(settings, store=of_other) as other,
                grpc.aio.insecure_channel(app.address) as channel,
                grpc.aio.insecure_channel(other.address) as other_channel,
                AsyncClient(other.address, user_id="ada") as client,
            ):
                call, elsewhere = Caller(channel), Caller(other_channel)
                job = await call.running()
                watching = asyncio.create_task(watch(client, job.id))
                for writer in (call, elsewhere):  # so that all have their connections
                    await writer.UpdateProgress(job_id=job.id, attempt=1, progress={"progress": 1})

                def complete() -> Awaitable[object]:
                    return call.MarkCompleted(job_id=job.id, attempt=1)

                def create(caller: Caller) -> Awaitable[object]:
                    return caller.job(request_id="r")

                await asyncio.to_thread(standby.stop)
                assert not await answered(complete)
                assert not await answered(lambda: create(call))
                if primary_then != "stays":
                    primary.kill()
                    await asyncio.to_thread(primary.start)
                    assert not await answered(complete)
                    assert not await answered(lambda: create(call))
                    assert not await answered(lambda: create(elsewhere))
                    assert not await answered(other.store.feed_head)
                    assert not await answered(lambda: other.store.changes_after(0, limit=9))
                    assert not await answered(
                        lambda: elsewhere.GetJob(job_id=job.id, user_id="ada")
                    )
                assert JobStatus.COMPLETED not in told
                primary.kill()
                await asyncio.to_thread(standby.start)
                await asyncio.to_thread(standby.promote)
                proxy.redirect(standby.port)
                while not await answered(complete):
                    pass
                while not await answered(lambda: create(call)):
                    pass
                await completed.wait()
                watching.cancel()
                await asyncio.wait([watching])
                page = await elsewhere.ListJobs(user_id="ada")
                assert len(page.jobs) == 2
    finally:
        standby.close()


async def test_a_server_leaves_a_primary_that_hangs_for_the_standby_that_took_over(
    primary: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The primary is the first host of the URL, and takes connections without an answer."""
    url = await asyncio.to_thread(migrated, primary.create_database())
    standby = await asyncio.to_thread(lambda: PostgresServer(primary=primary))
    try:
        # Without it the feed may go backwards, which may be seen first.
        await replicate_synchronously(url)
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in (primary, standby))
        database = f"postgresql://u@{hosts}/{url.rpartition('/')[2]}?target_session_attrs=primary"
        settings = Settings(listen="127.0.0.1:0", database=database, grace=2.0)
        async with open_app(settings) as app, writing(app) as written:
            await written.until(100)
            primary.freeze()
            await asyncio.to_thread(standby.promote)
            await written.until(100)
            while not (found := [r for r in caplog.records if r.message == "feed_epoch_changed"]):
                await asyncio.sleep(0.05)
        (changed,) = found
        assert (changed.levelname, vars(changed)["cause"]) == ("WARNING", FAILOVER)
    finally:
        primary.thaw()
        standby.close()


async def test_a_standby_is_not_read_from(primary: PostgresServer) -> None:
    """It shows changes that the primary does not show yet."""
    url = await asyncio.to_thread(migrated, primary.create_database())
    standby = await asyncio.to_thread(lambda: PostgresServer(primary=primary))
    database = open_database(parse_url(url.replace(str(primary.port), str(standby.port))))
    store = SqlStore(database)
    try:
        for read in (store.feed_head(), store.changes_after(0, limit=1)):
            with pytest.raises(StoreUnavailable, match="the database is a standby"):
                await read
        await asyncio.to_thread(standby.promote)
        assert (await store.feed_head()).seq == 0
    finally:
        await store.close()
        standby.close()


async def test_a_dump_under_load_is_complete_and_has_another_database_identity(
    primary: PostgresServer, other: PostgresServer
) -> None:
    url = await asyncio.to_thread(migrated, primary.create_database())
    settings = Settings(listen="127.0.0.1:0", database=url, grace=2.0)
    async with open_app(settings) as app, writing(app) as written:
        await written.until(100)
        before = set(written.jobs)
        copy = await asyncio.to_thread(primary.dump_into, other, url)
        await written.until(10)
    async with open_app(Settings(listen="127.0.0.1:0", database=copy, grace=2.0)) as app:
        assert app.hub.seq > 0
        async with AsyncClient(app.address, user_id="ada") as client:
            for job_id in before:
                assert (await client.get_job(job_id)).status is JobStatus.COMPLETED
        # It goes on from where the dump was taken.
        async with writing(app) as written:
            await written.until(50)
    epochs = set()
    for database in (url, copy):
        connection = await asyncpg.connect(database)
        assert await connection.fetchval(LOST) == 0
        epochs.add(await connection.fetchval("SELECT epoch FROM feed"))
        await connection.close()
    assert len(epochs) == 2, "no token of the one is taken by the other"
