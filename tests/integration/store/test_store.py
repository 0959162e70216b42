"""What `store.Store` promises, on both databases."""

import asyncio
from contextlib import suppress

import pytest
from msgspec.structs import replace
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from jobledger.v1.job_service_pb2 import CreateJobRequest
from jobledger_server.domain.commands import (
    Cancel,
    ChangeStatus,
    Delete,
    LinkAsset,
    Release,
    Report,
)
from jobledger_server.domain.job import (
    NO_PAYLOADS,
    AssetLink,
    Attempt,
    AttemptOutcome,
    JobError,
    JobId,
    JobStatus,
    Micros,
    Payload,
    Payloads,
    content_of,
)
from jobledger_server.rpc.jobs import job_requests
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import JobQuery, Outdated, StoredJob
from jobledger_server.tuning import Tuning
from jobledger_world.memory.store import MemoryStore
from tests.support.creations import filled
from tests.support.databases import sqlite_only
from tests.support.store_writer import (
    append,
    creation,
    finished,
    moved,
    read_job,
    read_jobs,
    saved,
    step,
)


async def test_a_job_is_read_back_exactly_as_it_was_written(store: SqlStore) -> None:
    payloads = Payloads(parameters=Payload(b"\n\x07\n\x01a\x12\x02 \x01"))
    said = job_requests.create(CreateJobRequest(**filled("delay")))
    job = await saved(
        store,
        **content_of(said) | {"labels": {"team/a": "ümläut 🎬", "k": ""}},
        parameters=payloads.parameters,
        request_id="r-1",
    )
    assert await read_job(store, job.id) == StoredJob(job, (), payloads)
    assert job.parameters_bytes == 9
    job = await moved(
        store, job, JobStatus.PROCESSING, worker_id="w", progress=5, progress_message="go"
    )
    stored = await read_job(store, job.id)
    assert (stored.job, stored.payloads, len(stored.transitions)) == (job, payloads, 1)
    outcome = {"result": Payload(b"r" * 9), "error_details": Payload(b"d" * 5)}
    error = JobError("DISK_FULL", "no space")
    job = await moved(store, job, JobStatus.PARTIAL, error=error, **outcome)
    stored = await read_job(store, job.id)
    assert stored.job == job
    assert stored.payloads == replace(payloads, **outcome)
    assert len(stored.transitions) == 2
    assert job.outcome_digest is not None
    assert job.complete_time is not None
    assert job.payload_bytes == 9 + 9 + 5
    assert await store.read_jobs([job.id], full=False) == {
        job.id: replace(stored, payloads=NO_PAYLOADS)
    }


async def test_a_checkpoint_is_read_where_the_next_attempt_needs_it(store: SqlStore) -> None:
    job = await saved(store, parameters=Payload(b"p"))
    other = await moved(store, await saved(store), JobStatus.PROCESSING)
    job = await moved(store, job, JobStatus.PROCESSING)
    for checkpoints in ((b"one",), (b"two", b"three"), (b"four", None)):
        decisions = []
        for content in checkpoints:
            payload = content and Payload(content)
            decisions.append(
                step(job, Report(job_id=job.id, progress_message=repr(content), checkpoint=payload))
            )
            job = decisions[-1].job
        await append(store, *decisions)
        latest = Payload([each for each in checkpoints if each][-1])
        assert job.checkpoint_bytes == len(latest)
        with_payloads = Payloads(parameters=Payload(b"p"), checkpoint=latest)
        stored = await read_job(store, job.id)
        assert (stored.job, stored.payloads) == (job, with_payloads)
    async with store.transaction() as transaction:
        claimed = await transaction.load_claimed([job.id, other.id])
    assert claimed[job.id].payloads == with_payloads
    assert claimed[other.id].payloads == NO_PAYLOADS
    # It is kept across attempts, and gone with the job.
    released = step(job, Release(job_id=job.id, attempt=1))
    await append(store, released)
    job = await moved(store, released.job, JobStatus.PROCESSING)
    assert (await read_job(store, job.id)).payloads == with_payloads
    job = await moved(store, job, JobStatus.COMPLETED)
    last = step(job, Delete(job_id=job.id, user_id="ada"))
    await append(store, last)
    assert await rows_of(store, "payloads") == 0


async def test_a_checkpoint_of_a_job_that_is_deleted_in_the_same_transaction_is_not_kept(
    store: SqlStore,
) -> None:
    job = await moved(store, await saved(store), JobStatus.PROCESSING)
    report = step(job, Report(job_id=job.id, checkpoint=Payload(b"c")))
    end = step(report.job, ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED))
    await append(store, report, end, step(end.job, Delete(job_id=job.id, user_id="ada")))
    assert await rows_of(store, "payloads") == 0


async def test_changes_are_visible_only_after_the_commit(
    store: SqlStore,
) -> None:
    decision = creation()
    with pytest.raises(RuntimeError, match="crash"):
        async with store.transaction() as transaction:
            await transaction.append([decision])
            assert await read_jobs(store, [decision.job.id]) == {}
            raise RuntimeError("crash")
    assert await read_jobs(store, [decision.job.id]) == {}
    assert (await store.feed_head()).seq == 0


async def test_sequence_numbers_are_dense_across_rollbacks(store: SqlStore) -> None:
    assert [c.seq for c in await append(store, creation(), creation())] == [1, 2]
    with pytest.raises(RuntimeError):
        async with store.transaction() as transaction:
            await transaction.append([creation(), creation(), creation()])
            raise RuntimeError
    assert [c.seq for c in await append(store, creation())] == [3]
    assert (await store.feed_head()).seq == 3


async def test_transactions_that_change_one_job_lose_no_update(store: SqlStore) -> None:
    """One waits for the other, or is to decide again."""
    job = await moved(store, await saved(store), JobStatus.PROCESSING)

    async def report(*, last: bool) -> None:
        async with store.transaction() as transaction:
            loaded = (await transaction.load_jobs([job.id]))[job.id]
            decision = step(loaded, Report(job_id=job.id, progress=loaded.progress + 1))
            await transaction.append([decision], last=last)

    async def reported(*, last: bool) -> None:
        while True:
            with suppress(Outdated):
                return await report(last=last)

    await asyncio.gather(*(reported(last=number % 2 == 0) for number in range(20)))
    after = (await read_job(store, job.id)).job
    assert (after.progress, after.version) == (20, job.version + 20)


async def test_a_request_id_belongs_to_its_owner(store: SqlStore) -> None:
    ours = await saved(store, request_id="same", parameters=Payload(b"p"))
    theirs = await saved(store, "bob", request_id="same")
    async with store.transaction() as transaction:
        found = await transaction.find_created([("ada", "same"), ("bob", "same"), ("ada", "x")])
    assert found == {("ada", "same"): (ours, b"p"), ("bob", "same"): (theirs, None)}


async def test_an_asset_is_found_by_its_request_id(store: SqlStore) -> None:
    job = await moved(store, await saved(store), JobStatus.PROCESSING)
    link = AssetLink("image/png", "https://e.example/a", "", 2**62, "a", "0f" * 32, "tag")
    decision = step(job, LinkAsset(job_id=job.id, link=link, request_id="r"))
    await append(store, decision)
    async with store.transaction() as transaction:
        found = await transaction.find_linked([(job.id, "r"), (job.id, "other")])
    assert found == {(job.id, "r"): decision.assets[0]}


async def test_assets_are_paged_oldest_first(store: SqlStore) -> None:
    job = await moved(store, await saved(store), JobStatus.PROCESSING)
    links = tuple(AssetLink("t", "", f"p{i}", i, f"p{i}") for i in range(5))
    job = await moved(store, job, JobStatus.COMPLETED, assets=links)
    first = await store.list_assets(job.id, after=None, limit=2)
    rest = await store.list_assets(job.id, after=first[-1].id, limit=10)
    assert [asset.link for asset in first + rest] == list(links)


async def test_the_attempts_that_did_not_end_their_job_are_paged_oldest_first(
    store: SqlStore,
) -> None:
    job = await saved(store, max_attempts=2, initial_backoff=Micros(1))
    ended: list[Attempt | None] = []
    for number in (1, 2, 3):
        job = await moved(store, job, JobStatus.PROCESSING, worker_id=f"w-{number}", progress=7)
        if number == 2:
            failed = JobError("DISK_FULL", "no space left")
            end = step(
                job,
                ChangeStatus(job_id=job.id, target=JobStatus.FAILED, error=failed, retryable=True),
            )
        else:
            end = step(job, Release(job_id=job.id, attempt=number))
        await append(store, end)
        job = end.job
        ended.append(end.ended)
    assert await store.list_attempts(job.id, after=0, limit=2) == ended[:2]
    assert await store.list_attempts(job.id, after=2, limit=2) == ended[2:]
    assert [each and each.outcome for each in ended] == [
        AttemptOutcome.RELEASED,
        AttemptOutcome.RETRIED,
        AttemptOutcome.RELEASED,
    ]
    other = await moved(store, await saved(store), JobStatus.PROCESSING)
    assert await store.list_attempts(other.id, after=0, limit=2) == []


@pytest.mark.parametrize("limit", [4, 5, 6])
@pytest.mark.parametrize("tuning", [Tuning(list_step=2)])
async def test_a_page_that_is_read_in_steps_has_each_job_once(store: SqlStore, limit: int) -> None:
    jobs = [await saved(store) for _ in range(5)]
    page = await store.list_jobs(JobQuery(user_id="ada"), before=None, limit=limit)
    assert page.jobs == jobs[::-1][:limit]
    assert (page.next_before is None) == (limit > 4)


async def test_the_jobs_of_all_owners_are_listed_newest_first(store: SqlStore) -> None:
    jobs = [await saved(store, owner) for owner in ("ada", "bob", "ada", "eve")]
    everybodys = JobQuery(user_id=None)
    page = await store.list_jobs(everybodys, before=None, limit=3)
    rest = await store.list_jobs(everybodys, before=page.next_before, limit=3)
    assert [*page.jobs, *rest.jobs] == jobs[::-1]
    assert rest.next_before is None


FILTERS: list[tuple[dict[str, object], str]] = [
    ({}, "abcd"),
    ({"statuses": frozenset({JobStatus.COMPLETED})}, "b"),
    ({"statuses": frozenset({JobStatus.COMPLETED, JobStatus.QUEUED})}, "abcd"),
    ({"job_types": frozenset({"export"})}, "c"),
    ({"labels": {"team/x.y-z": "red"}}, "cd"),
    ({"labels": {"team/x.y-z": "red", "n": "1"}}, "d"),
    ({"labels": {"team/x.y-z": "re"}}, ""),
    ({"labels": {"absent": ""}}, ""),
    ({"job_types": frozenset({"export"}), "labels": {"n": "1"}}, ""),
]


async def test_every_filter_narrows_the_list(store: SqlStore, subtests: pytest.Subtests) -> None:
    names = {
        (await saved(store)).id: "a",
        (await finished(store)).id: "b",
        (await saved(store, job_type="export", labels={"team/x.y-z": "red"})).id: "c",
        (await saved(store, labels={"team/x.y-z": "red", "n": "1"})).id: "d",
    }
    for filters, expected in FILTERS:
        with subtests.test(repr(filters)):
            found = await store.list_jobs(JobQuery(user_id="ada", **filters), before=None, limit=10)
            assert found.next_before is None
            assert sorted(names[job.id] for job in found.jobs) == list(expected)


async def test_the_list_is_filtered_by_what_became_of_the_jobs(
    store: SqlStore, subtests: pytest.Subtests
) -> None:
    waiting = await saved(store)
    held = await moved(store, await saved(store), JobStatus.PROCESSING)
    asked = await moved(store, await saved(store), JobStatus.PROCESSING)
    await append(store, step(asked, Cancel(job_id=asked.id, user_id="ada")))
    failed = [
        await moved(
            store,
            await moved(store, await saved(store), JobStatus.PROCESSING),
            JobStatus.FAILED,
            error=JobError(reason, "no"),
        )
        for reason in ("DISK_FULL", "TIMEOUT", "OTHER", "CANCELLED")
    ]
    repeat = await moved(
        store, await saved(store, origin_job_id=failed[0].id), JobStatus.PROCESSING
    )
    repeat = await moved(store, repeat, JobStatus.FAILED, error=JobError("TIMEOUT", "no"))
    deleted = await finished(store, origin_job_id=failed[1].id)
    await append(store, step(deleted, Delete(job_id=deleted.id, user_id="ada")))
    names = dict(
        zip(
            [each.id for each in (waiting, held, asked, *failed, repeat)],
            ("waiting", "held", "asked", "disk", "timeout", "other", "cancelled", "repeat"),
            strict=True,
        )
    )
    ended = {"statuses": frozenset({JobStatus.FAILED})}
    for filters, expected in (
        ({"error_reasons": frozenset({"DISK_FULL"})}, {"disk"}),
        ({"error_reasons": frozenset({"TIMEOUT", "OTHER"})}, {"timeout", "other", "repeat"}),
        ({"error_reasons": frozenset({"NONE"})}, set()),
        ({"origin_job_id": failed[0].id}, {"repeat"}),
        ({"origin_job_id": failed[1].id}, set()),
        ({"origin_job_id": JobId("no id")}, set()),
        ({"held": True}, {"held", "asked"}),
        ({"held": False}, {"waiting", "disk", "timeout", "other", "cancelled", "repeat"}),
        ({"cancelled": True}, {"cancelled"}),
        ({"cancelled": False}, {"waiting", "held", "asked", "disk", "timeout", "other", "repeat"}),
        ({"cancelled": False, **ended}, {"disk", "timeout", "other", "repeat"}),
        ({"not_rerun": True, **ended}, {"timeout", "other", "cancelled", "repeat"}),
        ({"uncancelled": True, "held": True}, {"held"}),
        ({"not_rerun": True, "error_reasons": frozenset({"DISK_FULL"})}, set()),
    ):
        for user_id in ("ada", None):
            with subtests.test(repr(filters), user_id=user_id):
                query = JobQuery(user_id=user_id, **filters)
                found = (await store.list_jobs(query, before=None, limit=10)).jobs
                assert {names[job.id] for job in found} == expected


async def test_creation_times_bound_the_list_exclusively(store: SqlStore) -> None:
    jobs = [await saved(store) for _ in range(3)]
    after = JobQuery(user_id="ada", created_after=jobs[0].create_time)
    assert (await store.list_jobs(after, before=None, limit=10)).jobs == [jobs[2], jobs[1]]
    between = replace(after, created_before=jobs[2].create_time)
    assert (await store.list_jobs(between, before=None, limit=10)).jobs == [jobs[1]]


async def rows_of(store: SqlStore, table: str) -> int:
    """Return how many rows a table has."""
    if isinstance(store, MemoryStore):
        rows = store.tables.rows.values()
        if table == "jobs":
            return len(rows)
        if table == "changes":
            return len(store.tables.changes(0, store.tables.head.seq, limit=100))
        if table == "payloads":
            return sum(row.payloads != NO_PAYLOADS for row in rows)
        return sum(len(getattr(row, table)) for row in rows)
    async with store._connections.snapshot() as connection:  # noqa: SLF001
        return int(await connection.scalar(text(f"SELECT count(*) FROM {table}")))


async def test_a_deleted_job_is_kept_for_the_feed_alone(store: SqlStore) -> None:
    job = await saved(store, max_attempts=2, labels={"k": "v"}, parameters=Payload(b"p"))
    job = await moved(store, job, JobStatus.PROCESSING, worker_id="w", progress=3)
    released = step(job, Release(job_id=job.id, attempt=1))
    await append(store, released)
    job = await moved(store, released.job, JobStatus.PROCESSING, worker_id="w")
    links = (AssetLink("t", "", "p", 1, "p"),)
    job = await moved(store, job, JobStatus.COMPLETED, assets=links, result=Payload(b"r"))
    other = await finished(store)
    before = (await store.changes_after(0, limit=10)).changes
    changes = await append(store, step(job, Delete(job_id=job.id, user_id="ada")))
    assert changes[0].job == replace(
        job, version=job.version + 1, update_time=changes[0].job.update_time
    )
    assert (await store.changes_after(0, limit=10)).changes == [*before, *changes]
    assert [len(change.transitions) for change in before] == [1, 1, 1, 1]
    assert await store.read_jobs([job.id], full=True) == {}
    assert await store.list_assets(job.id, after=None, limit=10) == []
    assert await store.list_attempts(job.id, after=0, limit=10) == []
    for owner in ("ada", None):
        page = await store.list_jobs(JobQuery(user_id=owner), before=None, limit=10)
        assert (page.jobs, page.next_before) == ([other], None)
    purgeable = await store.find_purgeable(Micros(0), after=0, limit=10)
    assert purgeable.jobs == [other.id]
    async with store.transaction() as transaction:
        assert await transaction.load_jobs([job.id]) == {}
        assert await transaction.load_claimed([job.id]) == {}
    # Of what only readers of the job itself need, the payloads are gone.
    tables = ("payloads", "attempts", "assets", "jobs")
    assert [await rows_of(store, table) for table in tables] == [0, 1, 1, 2]
    assert await store.compact_deletions(Micros(0), limit=10) == 1
    assert [await rows_of(store, table) for table in tables] == [0, 0, 0, 1]
    assert await rows_of(store, "changes") == 2


async def test_the_transactions_time_is_the_databases(store: SqlStore, database: Database) -> None:
    clock = {
        "sqlite": "SELECT CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)",
        "postgresql": "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    }[database.dialect.name]
    async with store.transaction() as transaction, database.reader.connect() as connection:
        ours = await transaction.now()
        theirs = (await connection.exec_driver_sql(clock)).scalar_one()
    assert abs(theirs - ours) < 1_000_000


async def test_a_commit_is_on_the_disk_before_it_is_acknowledged(database: Database) -> None:
    """No test can cut the power, so this checks the settings that guarantee it."""
    settings = {
        "sqlite": {
            "PRAGMA synchronous": 2,
            "PRAGMA journal_mode": "wal",
            "PRAGMA foreign_keys": 1,
        },
        # Each connection has it on. The tests' cluster has it off, and fsync, which is its own.
        "postgresql": {"SHOW synchronous_commit": "on"},
    }[database.dialect.name]
    async with database.writer.connect() as connection:
        for question, expected in settings.items():
            assert (await connection.exec_driver_sql(question)).scalar_one() == expected


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_readers_cannot_write(database: Database) -> None:
    for engine in (database.reader, database.lists):
        async with engine.connect() as connection:
            with pytest.raises(OperationalError, match="readonly"):
                await connection.execute(text("DELETE FROM jobs"))


async def test_a_history_is_complete_or_absent_during_a_deletion(
    store: SqlStore,
) -> None:
    """Else a watcher would get a terminal state without the transitions before it."""
    jobs = [await finished(store) for _ in range(10)]

    async def delete() -> None:
        for job in jobs:
            await append(store, step(job, Delete(job_id=job.id, user_id="ada")))

    async def read() -> None:
        while found := await store.read_jobs([job.id for job in jobs], full=False):
            assert {len(stored.transitions) for stored in found.values()} == {2}

    await asyncio.gather(delete(), *(read() for _ in range(3)))


async def test_what_a_worker_holds_is_found_oldest_first_by_its_types(store: SqlStore) -> None:
    jobs = []
    for worker, job_type in (("w", "a"), ("w", "b"), ("v", "a"), ("w", "a"), ("w", "a")):
        job = await saved(store, job_type=job_type)
        lease = Micros(10**9)
        fields = {"worker_id": worker, "lease_duration": lease}
        jobs.append(await moved(store, job, JobStatus.PROCESSING, **fields))

    async def found(*job_types: str, limit: int = 9) -> list[int]:
        held = await store.find_held("w", job_types, limit=limit)
        numbers = [[job.id for job in jobs].index(job_id) for job_id, _ in held]
        assert [attempt for _, attempt in held] == [1] * len(held)
        return numbers

    assert await found("a") == [0, 3, 4]
    assert await found("b", "a", limit=3) == [0, 1, 3]
    assert await found("c") == []
    await append(store, step(jobs[0], Release(job_id=jobs[0].id, attempt=1)))
    await moved(store, jobs[3], JobStatus.COMPLETED)
    assert await found("a", "b") == [1, 4]


@sqlite_only
async def test_transactions_that_follow_each_other_leave_no_other_one_behind(
    store: SqlStore,
) -> None:
    """SQLite has one connection that writes."""
    begun, go_on = asyncio.Event(), asyncio.Event()
    order: list[str] = []

    async def one(name: str) -> None:
        async with store.transaction() as transaction:
            await transaction.now()
            order.append(name)
            begun.set()
            await go_on.wait()

    async def many() -> None:
        for _ in range(3):
            await one("many")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(many())
        await begun.wait()
        tasks.create_task(one("other"))
        for _ in range(10):  # until it waits for the connection
            await asyncio.sleep(0)
        go_on.set()
    assert order.index("other") <= 1
