"""Resume tokens after the database was restored, copied or replaced: none loses a change."""

import shutil
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import text

from jobledger_server.app import open_app
from jobledger_server.database.url import parse_url
from jobledger_server.domain.commands import Create, Delete
from jobledger_server.domain.decisions import create
from jobledger_server.domain.job import Instant, Job, Micros
from jobledger_server.settings import Settings
from jobledger_server.sql.database import Database, open_database
from jobledger_server.sql.sql_store import SqlStore
from tests.support.databases import both_databases, execute, several_servers
from tests.support.gated_store import Gate, GatedStore
from tests.support.rpc_caller import Caller, calling, decoded, refusal, watching
from tests.support.store_writer import HOLE, append, finished, new_id, step


@asynccontextmanager
async def serving(url: str) -> Any:
    settings = Settings(listen="127.0.0.1:0", database=url, grace=1.0)
    async with open_app(settings) as app, calling(app.address) as call:
        yield call


async def newest_token(call: Caller) -> str:
    async with watching(call.WatchJobs()) as stream:
        while not (message := await stream.read()).synced:
            pass
        return message.resume_token


async def goes_on(call: Caller, token: str) -> bool:
    """Return whether the token is accepted; if not, check its refusal."""
    async with watching(call.WatchJobs(resume_token=token)) as stream:
        try:
            message = await stream.read()
        except grpc.RpcError:
            assert (await refusal(stream.read())).reason == "INVALID_TOKEN"
            return False
        assert message.changes.changes or message.synced
        return True


def backed_up(url: str, target: Path) -> Path:
    """Take a backup of the running database, as an operator would."""
    with sqlite3.connect(url.removeprefix("sqlite:///")) as source, sqlite3.connect(target) as copy:
        source.backup(copy)
    source.close()
    copy.close()
    return target


@both_databases
async def test_tokens_survive_restarts(database_url: str) -> None:
    tokens = []
    for _ in range(3):
        async with serving(database_url) as call:
            assert [await goes_on(call, token) for token in tokens] == [True] * len(tokens)
            await call.job()
            tokens.append(await newest_token(call))


async def test_a_token_of_changes_that_a_restore_undid_is_refused(
    database_url: str, tmp_path: Path
) -> None:
    file = Path(database_url.removeprefix("sqlite:///"))
    async with serving(database_url) as call:
        await call.job()
        early = await newest_token(call)
        backup = backed_up(database_url, tmp_path / "backup.db")
        await call.job()
        late = await newest_token(call)
    for leftover in file.parent.glob(f"{file.name}-*"):
        leftover.unlink()
    shutil.copyfile(backup, file)
    async with serving(database_url) as call:
        for _ in range(3):  # the feed moves past the sequence numbers that were assigned before
            await call.job()
        assert not await goes_on(call, late)
        assert not await goes_on(call, early)
        assert await goes_on(call, await newest_token(call))


async def test_a_copy_of_a_database_refuses_tokens_of_the_original(
    database_url: str, tmp_path: Path
) -> None:
    async with serving(database_url) as call:
        await call.job()
        token = await newest_token(call)
        copy = backed_up(database_url, tmp_path / "copy.db")
    async with serving(f"sqlite:///{copy}") as call:
        assert not await goes_on(call, token)
    async with serving(database_url) as call:
        assert await goes_on(call, token)


async def test_an_unreadable_lock_file_voids_the_tokens_and_nothing_else(
    database_url: str,
) -> None:
    async with serving(database_url) as call:
        token = await newest_token(call)
    Path(f"{database_url.removeprefix('sqlite:///')}.lock").write_text("gibberish")
    async with serving(database_url) as call:
        assert not await goes_on(call, token)


@several_servers
async def test_another_cluster_refuses_the_tokens(database_url: str) -> None:
    """A standby that took over, or a restore, has another timeline or another identifier."""
    async with serving(database_url) as call:
        token = await newest_token(call)
    database = open_database(parse_url(database_url))
    async with database.writer.begin() as connection:
        identity = (
            await connection.execute(text("SELECT database_identity FROM feed"))
        ).scalar_one()
        identifier, timeline, _table = identity.split()
        assert int(identifier) > 0
        assert timeline == "00000001"
        await connection.execute(
            text("UPDATE feed SET database_identity = replace(database_identity, ' 0000', ' 1111')")
        )
    await database.close()
    async with serving(database_url) as call:
        assert not await goes_on(call, token)


@several_servers
async def test_a_table_restored_from_a_dump_refuses_the_tokens(
    database_url: str,
) -> None:
    async with serving(database_url) as call:
        token = await newest_token(call)
    database = open_database(parse_url(database_url))
    await execute(
        database,
        "CREATE TABLE dump AS SELECT * FROM feed",
        "DROP TABLE feed",
        "ALTER TABLE dump RENAME TO feed",
    )
    await database.close()
    async with serving(database_url) as call:
        assert not await goes_on(call, token)


@several_servers
async def test_the_database_identity_can_be_read_by_an_unprivileged_user(database_url: str) -> None:
    """Any user can query what identifies a cluster."""
    role = "plain_" + database_url.rpartition("_")[2]
    database = open_database(parse_url(database_url))
    await execute(
        database,
        f"CREATE ROLE {role} LOGIN NOSUPERUSER",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
    )
    await database.close()
    async with serving(database_url.replace("//u@", f"//{role}@")) as call:
        await call.ended()
        assert await goes_on(call, await newest_token(call))


@asynccontextmanager
async def serving_from(gated: GatedStore, url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("jobledger_server.app.SqlStore", lambda *_, **__: gated)
    settings = Settings(listen="127.0.0.1:0", database=url, grace=1.0, heartbeat=0.05)
    async with open_app(settings) as app, calling(app.address) as call:
        yield call


async def forgotten_deletion(store: SqlStore, _database: Database) -> None:
    """The changes that a server finds after it could not read the feed for a long time."""
    gone = await finished(store)
    await append(store, step(gone, Delete(job_id=gone.id, user_id=gone.user_id)))
    assert await store.compact_deletions(Micros(0), limit=10) == 1


async def saved_now(store: SqlStore) -> Job:
    """Save a job that is not overdue: the reaper's change of it would come after the hole."""
    now = Instant(time.time_ns() // 1000)
    decision = create(None, Create(user_id="ada", job_type="render"), now=now, new_id=new_id)
    await append(store, decision)
    return decision.job


async def hole(_store: SqlStore, database: Database) -> None:
    """Impossible by design: made by hand."""
    await execute(database, HOLE)


@pytest.mark.parametrize("why", [forgotten_deletion, hole])
@pytest.mark.parametrize("user_id", ["ada", "nobody"])
async def test_no_token_is_ahead_of_its_stream_when_the_feed_restarts(
    database_url: str,
    store: SqlStore,
    monkeypatch: pytest.MonkeyPatch,
    database: Database,
    why: Callable[[SqlStore, Database], Awaitable[None]],
    user_id: str,
) -> None:
    gated, gate = GatedStore(store), Gate()
    async with serving_from(gated, database_url, monkeypatch) as call:
        await call.job()
        async with watching(call.WatchJobs(user_id=user_id)) as stream:
            while not (message := await stream.read()).synced:
                pass
            # The tail too, which reads by itself if the lookout has not for a while.
            gated.before_news = gated.before_head = gate
            await gate.reached.wait()
            delivered = set[str]()
            before = {message.resume_token: set[str]()}  # the jobs delivered up to each token

            def note(message: Any) -> None:
                delivered.update(change.job.id for change in message.changes.changes)
                before[message.resume_token] = set(delivered)

            for _ in range(3):
                note(await stream.read())
            missed = [await saved_now(store) for _ in range(20)]
            await why(store, database)
            gate.open()
            with pytest.raises(grpc.RpcError) as ended:
                while message := await stream.read():
                    note(message)
            refused = decoded(ended.value)
            assert refused.code is grpc.StatusCode.UNAVAILABLE
            before.setdefault(refused.metadata["resume_token"], delivered)
        for token, delivered in before.items():
            async with watching(call.WatchJobs(user_id=user_id, resume_token=token)) as stream:
                if why is forgotten_deletion:
                    assert (await refusal(stream.read())).reason == "RESUME_TOKEN_EXPIRED"
                    continue
                seen = set(delivered)
                while not (message := await stream.read()).synced:
                    seen.update(change.job.id for change in message.changes.changes)
                assert seen == {job.id for job in missed if job.user_id == user_id}
