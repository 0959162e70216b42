"""PgBouncer between the server and PostgreSQL: it works, or the error says what to set."""

import asyncio
from collections.abc import Iterator
from typing import Any

import asyncpg
import grpc
import pytest

from jobledger_server.app import open_app
from jobledger_server.database.url import parse_url
from jobledger_server.domain.commands import Create
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.settings import Settings
from jobledger_server.sql.database import open_database
from jobledger_server.sql.schema import require_supported
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import StoreError, StoreUnavailable
from tests.support.databases import NoOutages, migrated
from tests.support.ledger_calls import apply
from tests.support.pooler import pooled
from tests.support.postgres_server import PostgresServer
from tests.support.rpc_caller import COMPLETED, Caller

pytestmark = pytest.mark.slow

IGNORED = (
    "idle_in_transaction_session_timeout, jit, lock_timeout, plan_cache_mode, random_page_cost,"
    " statement_timeout, synchronous_commit, extra_float_digits"
)


@pytest.fixture
def url() -> Iterator[str]:
    """A database in a cluster of its own, whose user can be changed."""
    server = PostgresServer(durable=False)
    yield migrated(server.create_database())
    server.close()


async def set_for_user(url: str, **settings: str) -> None:
    connection = await asyncpg.connect(url)
    for name, value in settings.items():
        await connection.execute(f"ALTER USER u SET {name} = '{value}'")
    await connection.close()


@pytest.mark.parametrize("mode", ["transaction", "session"])
@pytest.mark.parametrize("ignored", ["", IGNORED], ids=["refused", "ignored"])
async def test_a_pooler_that_drops_session_settings_is_refused_with_the_setting_to_change(
    url: str, mode: str, ignored: str
) -> None:
    with pooled(url, pool_mode=mode, ignore_startup_parameters=ignored) as through:
        database = open_database(parse_url(through))
        with pytest.raises(StoreUnavailable, match="the address of PostgreSQL itself"):
            await require_supported(database)
        await database.close()


async def test_a_lost_prepared_statement_is_explained_by_transaction_pooling(
    url: str,
) -> None:
    """With settings of the user, not of the sessions: nothing else shows it earlier."""
    await set_for_user(url, plan_cache_mode="force_custom_plan")

    async def work(through: str) -> None:
        database = open_database(parse_url(through))
        await require_supported(database)
        store = SqlStore(database)
        async with Ledger(store, lambda _: None, max_waiting=100) as ledger:
            ledger.outages = NoOutages()
            for _ in range(2):
                create = Create(user_id="ada", job_type="t")
                await asyncio.gather(store.feed_head(), apply(ledger, create), store.feed_head())

    once = {"server_lifetime": "0"}  # each transaction has a connection to PostgreSQL of its own
    with (
        pooled(url, pool_mode="transaction", ignore_startup_parameters=IGNORED, **once) as through,
        pytest.raises(StoreError, match="let it pool sessions"),
    ):
        await work(through)


async def test_the_server_works_behind_a_session_pooler(url: str) -> None:
    await set_for_user(
        url,
        plan_cache_mode="force_custom_plan",
        lock_timeout="4s",
        idle_in_transaction_session_timeout="5s",
    )
    with pooled(
        url, pool_mode="session", ignore_startup_parameters=IGNORED, default_pool_size="40"
    ) as through:
        settings: dict[str, Any] = {"listen": "127.0.0.1:0", "database": through}
        async with (
            open_app(Settings(**settings)) as app,
            open_app(Settings(**settings, feed="poll")) as other,
            grpc.aio.insecure_channel(app.address) as here,
            grpc.aio.insecure_channel(other.address) as there,
        ):
            job = await Caller(here).running()
            stream = Caller(there).WatchJob(job_id=job.id, user_id="ada")
            await stream.read()
            await Caller(here).MarkCompleted(job_id=job.id, attempt=1)
            assert (await stream.read()).job.status == COMPLETED
