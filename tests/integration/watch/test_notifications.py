"""Notifications between servers on one PostgreSQL: earlier delivery, and nothing depends on it."""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from jobledger_server.app import App
from jobledger_server.database.url import parse_url
from jobledger_server.sql.postgresql import notifications
from jobledger_server.tuning import Tuning
from tests.support.rpc_caller import COMPLETED, Caller, calling
from tests.support.tasks import running

Start = Callable[..., Any]


@pytest.fixture
def database_url(postgres: Any, postgres_template: str) -> str:
    return postgres.create_database(postgres_template)


no_polling = pytest.mark.parametrize(
    "tuning",
    [
        Tuning(
            look_seconds=3600,
            tail_idle_seconds=3600,
            tail_busy_seconds=3600,
            output_poll_seconds=3600,
        )
    ],
)
"""Changes are seen by notifications only."""


async def sees_the_end(here: Any, there: Any) -> None:
    """Run a job through one server and watch it through the other."""
    async with calling(here.address) as call, calling(there.address) as other:
        job = await call.running()
        stream = other.WatchJob(job_id=job.id, user_id="ada")
        await stream.read()
        await call.MarkCompleted(job_id=job.id, attempt=1)
        assert (await stream.read()).job.status == COMPLETED


async def listeners(database_url: str, *, kill: bool = False) -> int:
    """Count the servers' listening connections, and cut them off if asked to."""
    what = "pg_terminate_backend(pid)" if kill else "pid"
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            f"SELECT {what} FROM pg_stat_activity"
            " WHERE application_name = 'jobledger notifications' AND datname = current_database()"
        )
        return len(rows)
    finally:
        await connection.close()


async def until_listening(database_url: str, count: int) -> None:
    async with asyncio.timeout(20):
        while await listeners(database_url) != count:
            await asyncio.sleep(0.01)


@no_polling
async def test_a_notification_delivers_a_commit_to_another_server_without_a_poll(
    start: Start, database_url: str
) -> None:
    here, there = await start(), await start()
    await until_listening(database_url, 2)
    await sees_the_end(here, there)
    await sees_the_end(there, here)


@no_polling
async def test_a_notification_delivers_output_to_another_server_without_a_poll(
    start: Start, database_url: str
) -> None:
    here, there = await start(), await start()
    await until_listening(database_url, 2)
    async with calling(here.address) as call, calling(there.address) as other:
        job = await call.running()
        stream = other.WatchOutput(job_id=job.id, user_id="ada")
        assert (await stream.read()).up_to_date
        for text in (b"one", b"two"):
            await call.AppendOutput(job_id=job.id, attempt=1, data=text)
            assert (await stream.read()).data == text
        await call.MarkCompleted(job_id=job.id, attempt=1)
        assert (await stream.read()).closed


@no_polling
async def test_output_that_was_missed_is_read_once_the_server_listens_again(
    start: Start, database_url: str
) -> None:
    here, there = await start(), await start()
    await until_listening(database_url, 2)
    async with calling(here.address) as call, calling(there.address) as other:
        job = await call.running()
        stream = other.WatchOutput(job_id=job.id, user_id="ada")
        assert (await stream.read()).up_to_date
        assert await listeners(database_url, kill=True) == 2
        await call.AppendOutput(job_id=job.id, attempt=1, data=b"meanwhile")
        assert (await stream.read()).data == b"meanwhile"


@no_polling
async def test_listeners_reconnect_after_a_broken_connection(
    start: Start, database_url: str
) -> None:
    here, there = await start(), await start()
    await until_listening(database_url, 2)
    assert await listeners(database_url, kill=True) == 2
    # They may not have reconnected yet: each polls for what it has missed when it does.
    await sees_the_end(here, there)
    await until_listening(database_url, 2)
    await sees_the_end(there, here)


async def test_without_notifications_changes_are_found_by_polling(
    start: Start, database_url: str
) -> None:
    here, there = await start(feed="poll"), await start(feed="poll")
    assert await listeners(database_url) == 0
    await sees_the_end(here, there)


@no_polling
async def test_a_server_does_not_poll_for_its_own_commits(
    app: App, call: Caller, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await until_listening(database_url, 1)
    looks = 0
    head = app.store.feed_head

    async def counted() -> Any:
        nonlocal looks
        looks += 1
        return await head()

    monkeypatch.setattr(app.store, "feed_head", counted)
    for _ in range(20):
        await call.ended()
    # At most the one that comes with connecting, if it was not over yet.
    assert looks <= 1


async def test_a_connection_that_postgresql_has_ended_is_reported_and_replaced(
    database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its last word may arrive before the end of the connection, and a command in between."""
    connect = asyncpg.connect
    connections: list[Any] = []

    async def connected(*arguments: Any, **options: Any) -> Any:
        connections.append(await connect(*arguments, **options))
        return connections[-1]

    monkeypatch.setattr(asyncpg, "connect", connected)
    monkeypatch.setattr(notifications, "RECONNECT_SECONDS", 0.0)
    listening = asyncio.Event()
    notifier = notifications.Notifications(
        parse_url(database_url), listening.set, lambda: None, lambda _: None
    )
    async with running(notifier.run()):
        await listening.wait()
        listening.clear()
        fields = b"SFATAL\0C57P01\0Mterminating connection\0\0"
        error = b"E" + (len(fields) + 4).to_bytes(4) + fields
        connections[0]._protocol.data_received(error)  # noqa: SLF001
        notifier.committed()
        await listening.wait()
    assert connections[0].is_closed()
    assert [record.message for record in caplog.records] == ["notifications_unavailable"]
