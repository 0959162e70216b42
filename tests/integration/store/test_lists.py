"""What a list reads, how long it may take, and that it leaves nothing open."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from jobledger_server.domain.job import Instant, Job, JobId, JobStatus, Payload
from jobledger_server.domain.limits import (
    LIST_SECONDS,
    MAX_FULL_PAGE_BYTES,
    MAX_SCANNED_JOBS,
)
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import JobPage, JobQuery, StoreUnavailable
from tests.support.counted import counting
from tests.support.databases import both_databases, execute, several_servers
from tests.support.query_plans import plan
from tests.support.seeding import FAR, seed, seeded_id
from tests.support.store_writer import append, creation, finished, saved

NOTHING = JobQuery(user_id="ada", labels={"nothing": "has this"})


async def test_a_list_with_a_selective_filter_scans_a_bounded_number_of_jobs(
    store: SqlStore, database: Database
) -> None:
    """Each job that passes is on one page, and only the last page says that it is the last."""
    await seed(database, 2 * MAX_SCANNED_JOBS + 100)
    seldom = "UPDATE jobs SET job_type = 'seldom' WHERE CAST(id AS TEXT) LIKE '%777'"
    await execute(database, seldom)
    numbers = range(777, 2 * MAX_SCANNED_JOBS + 100, 1000)
    expected = sorted(map(seeded_id, numbers), reverse=True)
    for query, wanted in (
        (JobQuery(user_id="ada", job_types=frozenset({"seldom"})), expected),
        (NOTHING, []),
    ):
        found: list[JobId] = []
        pages = 0
        before = None
        while pages == 0 or before is not None:
            page = await store.list_jobs(query, before=before, limit=4)
            found += [job.id for job in page.jobs]
            before = page.next_before
            pages += 1
        assert found == wanted
        # Those that are full, and where a scan ends.
        assert 3 <= pages <= 3 + len(wanted) // 4


async def test_jobs_that_were_created_too_late_are_not_scanned(
    store: SqlStore, database: Database
) -> None:
    job = await saved(store)
    await seed(database, MAX_SCANNED_JOBS + 100)  # their ids are of the year 10889
    await execute(database, f"UPDATE jobs SET create_time = {FAR} WHERE id <> '{job.id}'")
    query = JobQuery(user_id="ada", created_before=Instant(job.create_time + 1))
    assert await store.list_jobs(query, before=None, limit=10) == JobPage([job], None)


async def test_another_owners_jobs_are_not_scanned(store: SqlStore, database: Database) -> None:
    await seed(database, MAX_SCANNED_JOBS + 100)
    query = JobQuery(user_id="bob", labels={"no": "such"})
    assert await store.list_jobs(query, before=None, limit=4) == await store.list_jobs(
        JobQuery(user_id="bob"), before=None, limit=4
    )


@both_databases
@pytest.mark.parametrize("user_id", ["ada", None])
async def test_the_job_that_repeats_another_one_is_found_without_a_scan(
    store: SqlStore,
    database: Database,
    user_id: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = await finished(store)
    repeating = await saved(store, origin_job_id=job.id)
    await seed(database, MAX_SCANNED_JOBS + 100)
    query = JobQuery(user_id=user_id, origin_job_id=job.id)
    with counting(database, monkeypatch) as counted:
        page = await store.list_jobs(query, before=None, limit=50)
        assert page == JobPage([repeating], None)
        ran = list(zip(counted.statements, counted.values, strict=True))
    found = [await plan(database, *each) for each in ran if "FROM jobs" in each[0]]
    assert found
    assert all("uq_jobs_origin_job_id" in each for each in found)


@both_databases
async def test_jobs_are_found_by_their_unique_key_and_by_their_request_without_a_scan(
    store: SqlStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = await finished(store, unique_key="u", request_id="r1")
    await saved(store, user_id="bob", unique_key="u", request_id="r2")
    active = await saved(store, unique_key="u", request_id="r2")
    await saved(store, unique_key="other", request_id="r3")
    await seed(database, MAX_SCANNED_JOBS + 100)
    await execute(database, "ANALYZE jobs")
    queued = frozenset({JobStatus.QUEUED})
    cases: list[tuple[list[Job], str, dict[str, Any]]] = [
        ([active, ended], "ix_jobs_user_id_unique_key_id", {"unique_key": "u"}),
        ([active], "ix_jobs_user_id_unique_key_id", {"unique_key": "u", "statuses": queued}),
        ([], "ix_jobs_user_id_unique_key_id", {"unique_key": "none"}),
        ([active], "uq_jobs_user_id_request_id", {"request_id": "r2"}),
        ([], "uq_jobs_user_id_request_id", {"request_id": "r2", "unique_key": "other"}),
        ([], "uq_jobs_user_id_request_id", {"request_id": "none"}),
    ]
    with counting(database, monkeypatch) as counted:
        for wanted, index, filters in cases:
            counted.reset()
            query = JobQuery(user_id="ada", **filters)
            assert await store.list_jobs(query, before=None, limit=50) == JobPage(wanted, None)
            ran = list(zip(counted.statements, counted.values, strict=True))
            found = [await plan(database, *each) for each in ran if "FROM jobs" in each[0]]
            assert found
            assert all(index in each for each in found)


async def test_pages_of_a_unique_key_go_on_where_they_ended(store: SqlStore) -> None:
    jobs = [await finished(store, unique_key="u") for _ in range(5)]
    query = JobQuery(user_id="ada", unique_key="u")
    first = await store.list_jobs(query, before=None, limit=3)
    assert first == JobPage(jobs[:1:-1], jobs[2].id)
    assert await store.list_jobs(query, before=jobs[2].id, limit=3) == JobPage(jobs[1::-1], None)


@several_servers
async def test_newer_jobs_of_others_are_not_read(store: SqlStore, database: Database) -> None:
    """However many there are: PostgreSQL would read them in the order of their ids."""
    await seed(database, 19_000)
    # Jobs of both are on each page, so that the index by owner seems dear.
    every_third = "UPDATE jobs SET user_id = 'bob' WHERE change_seq % 3 = 0"
    await execute(database, every_third, "ANALYZE jobs")
    statements: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, values: Any, *___: object) -> None:
        statements.append((statement, values))

    event.listen(database.lists.sync_engine, "before_cursor_execute", note)
    query = JobQuery(user_id="bob", labels={"nothing": "has this"})
    assert await store.list_jobs(query, before=None, limit=50) == JobPage([], seeded_id(4_002))
    ran = [each for each in statements if "FROM jobs" in each[0]]
    assert len(ran) == 2
    for statement, values in ran:
        assert "ix_jobs_user_id_id" in await plan(database, statement, values)


@pytest.mark.parametrize("full", [False, True])
async def test_a_page_ends_where_its_jobs_would_not_fit_an_answer(
    store: SqlStore,
    full: bool,  # noqa: FBT001
) -> None:
    """With their payloads, which are not read, only if they are to be in the answer."""
    made = [await saved(store, parameters=Payload(bytes(250_000))) for _ in range(8)]
    query = JobQuery(user_id="ada")
    first = await store.list_jobs(query, before=None, limit=1000, full=full)
    if full:
        assert len(first.jobs) == MAX_FULL_PAGE_BYTES // 252_000
        rest = await store.list_jobs(query, before=first.next_before, limit=1000, full=full)
        assert [*first.jobs, *rest.jobs] == made[::-1]
        first = rest
    assert first.jobs == made[::-1][-len(first.jobs) :]
    assert first.next_before is None


async def test_a_page_of_jobs_with_long_texts_ends_where_they_would_not_fit_an_answer(
    store: SqlStore,
) -> None:
    labels = {f"{n:063}": "🎬" * 255 for n in range(32)}
    await append(store, *(creation(labels=labels) for _ in range(130)))
    query = JobQuery(user_id="ada")
    page = await store.list_jobs(query, before=None, limit=1000)
    pages = [page]
    while page.next_before is not None:
        page = await store.list_jobs(query, before=page.next_before, limit=1000)
        pages.append(page)
    listed = [job.id for page in pages for job in page.jobs]
    assert listed == sorted(set(listed), reverse=True)
    assert len(listed) == 130
    assert max(len(page.jobs) for page in pages) < 100


@asynccontextmanager
async def endless_lists(database: Database) -> AsyncIterator[None]:
    """Replace the table of jobs by a view that takes far too long to read.

    It does end: if the test fails, SQLite's thread does not run indefinitely.
    """
    numbers = "SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000000"
    endless = {
        "sqlite": f"(WITH RECURSIVE n(i) AS ({numbers}) SELECT i FROM n)",
        "postgresql": "pg_sleep(20)",
    }[database.dialect.name]
    await execute(
        database,
        "ALTER TABLE jobs RENAME TO all_jobs",
        f"CREATE VIEW jobs AS SELECT all_jobs.* FROM all_jobs, {endless} AS n",
    )
    yield
    await execute(database, "DROP VIEW jobs", "ALTER TABLE all_jobs RENAME TO jobs")


async def test_a_list_is_aborted_after_its_timeout_or_when_its_caller_is_gone(
    store: SqlStore, database: Database
) -> None:
    """Its connection can be used again, and no statement keeps running."""
    job = await finished(store)
    query = JobQuery(user_id="ada")
    for _ in range(3):  # there are fewer connections
        async with endless_lists(database):
            lists = [
                asyncio.create_task(store.list_jobs(query, before=None, limit=10)) for _ in range(2)
            ]
            await asyncio.sleep(0.1)
            assert not any(each.done() for each in lists)
            for each in lists:
                each.cancel()
            await asyncio.wait(lists, timeout=3 * LIST_SECONDS)
            assert all(each.cancelled() for each in lists)
        assert await store.list_assets(job.id, after=None, limit=10) == []
    if database.dialect.name == "postgresql":
        async with endless_lists(database):
            with pytest.raises(StoreUnavailable) as caught:
                await store.list_jobs(query, before=None, limit=10)
        assert caught.value.kind == "timeout"
        running = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event = 'PgSleep' AND datname = current_database()"
        )
        async with database.reader.connect() as connection:
            assert (await connection.execute(text(running))).scalar_one() == 0


async def test_a_list_cancelled_twice_stops_before_its_task_ends(
    store: SqlStore, database: Database
) -> None:
    """Else an unsupervised task would use its connection, even when the store is closed."""
    await saved(store)
    async with endless_lists(database):
        listing = asyncio.create_task(
            store.list_jobs(JobQuery(user_id="ada"), before=None, limit=10)
        )
        await asyncio.sleep(0.1)
        for _ in range(3):
            listing.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([listing], timeout=3 * LIST_SECONDS)
    assert listing.cancelled()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_cancelled_lists_leave_nothing_open(store: SqlStore, database: Database) -> None:
    await seed(database, 1000)
    await asyncio.gather(
        *(store.list_jobs(NOTHING, before=None, limit=10) for _ in range(10)),
        *(store.changes_after(0, limit=100) for _ in range(10)),
    )

    def is_open() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    before = is_open()
    for number in range(20):
        lists = [
            asyncio.create_task(store.list_jobs(NOTHING, before=None, limit=10)),
            asyncio.create_task(store.list_assets(JobId(seeded_id(1)), after=None, limit=10)),
            asyncio.create_task(store.changes_after(0, limit=100)),
        ]
        await asyncio.sleep(number % 10 / 2000)
        for each in lists:
            each.cancel()
        await asyncio.wait(lists)
    assert is_open() <= before
