"""What `store.Store` promises of the feed, on both databases."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable

import pytest

from jobledger_server.domain.commands import Cancel, ChangeStatus, Delete, Release, Report
from jobledger_server.domain.decisions import decide
from jobledger_server.domain.job import (
    Instant,
    Job,
    JobError,
    JobId,
    JobStatus,
    Micros,
    Payload,
    first_id,
)
from jobledger_server.domain.leases import expire
from jobledger_server.sql.database import Database
from jobledger_server.sql.driver import Prepared
from jobledger_server.sql.feed_statements import FeedStatements
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import (
    START_OF_ACTIVE,
    ActivePosition,
    Change,
    FeedCompacted,
    JobQuery,
    StoreFault,
    StoreUnavailable,
)
from jobledger_server.tuning import Tuning
from tests.support.databases import execute, out_of_reach
from tests.support.query_plans import plan
from tests.support.store_writer import (
    append,
    creation,
    finished,
    moved,
    read_jobs,
    saved,
    step,
)

COMPLETED, PROCESSING = JobStatus.COMPLETED, JobStatus.PROCESSING


async def reported(store: SqlStore, job: Job, progress: int) -> Job:
    decision = step(job, Report(job_id=job.id, progress=progress))
    await append(store, decision)
    return decision.job


async def pages(
    store: SqlStore,
    after: int = 0,
    *,
    limit: int,
    user_id: str | None = None,
) -> AsyncIterator[list[Change]]:
    """Read to the head, a page at a time."""
    while True:
        page = await store.changes_after(after, limit=limit, user_id=user_id)
        assert len(page.changes) <= limit
        yield list(page.changes)
        after = page.through
        if after == page.head.seq:
            return


async def all_changes(store: SqlStore, after: int = 0, **options: object) -> list[Change]:
    return [change async for page in pages(store, after, **options) for change in page]


def assert_told_once_and_in_order(changes: Iterable[Change]) -> dict[JobId, list[int]]:
    """Check what every reader is promised; return the versions of each job's transitions."""
    places = [change.seq for change in changes]
    assert places == sorted(set(places))
    versions: dict[JobId, list[int]] = {}
    steps: dict[JobId, list[int]] = {}
    for change in changes:
        job = change.job
        told = versions.setdefault(job.id, [])
        assert not told or told[-1] < job.version
        told.append(job.version)
        steps.setdefault(job.id, []).extend(t.version for t in change.transitions)
        assert not steps[job.id] or steps[job.id][-1] <= job.version
    assert all(found == sorted(set(found)) for found in steps.values())
    return steps


async def test_a_page_ends_at_the_change_that_it_is_read_up_to(store: SqlStore) -> None:
    jobs = [await saved(store) for _ in range(4)]
    page = await store.changes_after(0, limit=10, until=3)
    assert [change.job for change in page.changes] == jobs[:3]
    assert (page.through, page.head.seq) == (3, 4)
    page = await store.changes_after(1, limit=1, until=3)
    assert ([change.job for change in page.changes], page.through) == ([jobs[1]], 2)
    # Nothing is missing before it, and nothing is read.
    page = await store.changes_after(3, limit=10, until=3)
    assert (list(page.changes), page.through) == ([], 3)
    # What the head has become since `until` was read is not in the page.
    assert (await store.changes_after(0, limit=10, until=99)).through == 4


async def test_a_start_in_the_feed_stays_as_it_was_whatever_follows(store: SqlStore) -> None:
    """For every reader of it: of all owners, of one, and once the job is deleted."""
    job = await saved(
        store,
        max_attempts=3,
        schedule_time=Instant(1_600_000_000_000_000),
        origin_job_id=first_id(Instant(10**15)),
        stall_timeout=Micros(10**8),
        run_timeout=Micros(10**12),
        initial_backoff=Micros(100),
    )
    said = {"worker_id": "w-1", "progress": 5, "progress_message": "off"}
    start = step(job, ChangeStatus(job_id=job.id, target=PROCESSING, **said))
    (started,) = await append(store, start)
    error = JobError("DISK_FULL", "no space is left")

    def retryable(attempt: int) -> ChangeStatus:
        return ChangeStatus(
            job_id=job.id,
            target=JobStatus.FAILED,
            attempt=attempt,
            error=error,
            retryable=True,
            retry_delay=Micros(0),
        )

    job = start.job
    for number, later in enumerate(
        (
            Report(job_id=job.id, attempt=1, progress=7, progress_message="on"),
            Report(job_id=job.id, attempt=1, checkpoint=Payload(b"one")),
            Release(job_id=job.id, attempt=1),
            ChangeStatus(job_id=job.id, target=PROCESSING, worker_id="w-2"),
            Release(job_id=job.id, attempt=2, delay=Micros(1)),
            ChangeStatus(job_id=job.id, target=PROCESSING, worker_id="w-3"),
            Report(job_id=job.id, attempt=3, progress=8, checkpoint=Payload(b"two")),
            retryable(3),
            ChangeStatus(job_id=job.id, target=PROCESSING, worker_id="w-4"),
            retryable(4),
            ChangeStatus(job_id=job.id, target=PROCESSING, worker_id="w-5"),
            Cancel(job_id=job.id, user_id="ada", reason="enough"),
            retryable(5),
            Delete(job_id=job.id, user_id="ada"),
        ),
        start=3,
    ):
        decision = step(job, later)
        assert decision.job.version == number
        (change,) = await append(store, decision)
        job = decision.job
        for user_id in (None, "ada"):
            found = (await store.changes_after(0, limit=10, user_id=user_id)).changes
            assert found[0] == started
            assert found[-1] == change
    assert (job.releases, job.last_error, job.error) == (2, error, error)


@pytest.mark.parametrize("reason", ["CANCELLED", "QUEUE_EXPIRED"])
async def test_a_job_that_ends_without_a_start_is_in_the_feed_at_both_transitions(
    store: SqlStore, reason: str
) -> None:
    job = await saved(
        store,
        stall_timeout=Micros(10**6),
        run_timeout=Micros(10**9),
        schedule_time=Instant(1_800_000_000_000_000),
    )
    ended = step(job, Cancel(job_id=job.id, user_id="ada", reason="enough"))
    if reason == "QUEUE_EXPIRED":
        assert job.queue_expire_time is not None
        ended = expire(job, job.queue_expire_time)
    assert ended.via is not None
    changes = await append(store, ended.via, ended)
    assert ended.job.error is not None
    assert ended.job.error.reason == reason
    first, second = [page async for page in pages(store, after=1, limit=1)]
    assert [*first, *second] == changes
    assert [t.version for c in changes for t in c.transitions] == [2, 3]
    assert [t.attempt for c in changes for t in c.transitions] == [0, 0]


async def test_a_start_in_the_feed_has_no_later_cancellation_of_an_earlier_time(
    store: SqlStore,
) -> None:
    """Of two servers' transactions the one that commits later can have the earlier time."""
    job = await saved(store)
    started = await moved(store, job, PROCESSING, worker_id="w")
    sooner = Instant(started.update_time - 1)
    cancel = Cancel(job_id=job.id, user_id="ada", reason="enough")
    await append(store, decide(started, cancel, now=sooner, new_id=str))
    first, second = (await store.changes_after(1, limit=10)).changes
    assert first.job == started
    assert second.job.cancel_request_time == sooner


async def test_a_deleted_job_is_in_the_feed_at_its_start_its_end_and_its_deletion(
    store: SqlStore,
) -> None:
    """Wherever a reader is between them, it misses none."""
    job = await saved(store, parameters=Payload(b"p"), labels={"k": "v"})
    started = await moved(store, job, PROCESSING, worker_id="w")
    ended = await moved(store, await reported(store, started, 5), COMPLETED, result=Payload(b"r"))
    (deletion,) = await append(store, step(ended, Delete(job_id=job.id, user_id="ada")))
    for limit in (1, 2, 10):
        for after in range(6):
            changes = await all_changes(store, after, limit=limit)
            expected = [(2, started, 1, False), (4, ended, 1, False), (5, deletion.job, 0, True)]
            assert [(c.seq, c.job, len(c.transitions), c.deleted) for c in changes] == [
                each for each in expected if each[0] > after
            ]
    assert (deletion.job.version, deletion.job.status) == (5, COMPLETED)


@pytest.mark.parametrize("lost", ["DELETE FROM changes", "UPDATE changes SET seq = seq + 100"])
async def test_a_change_of_a_job_that_the_feed_has_lost_is_refused_and_writes_nothing(
    store: SqlStore, database: Database, lost: str
) -> None:
    job = await reported(store, await moved(store, await saved(store), PROCESSING), 5)
    other = await saved(store)
    await execute(database, f"{lost} WHERE job_id = '{job.id}'")
    last = step(job, ChangeStatus(job_id=job.id, target=COMPLETED))
    with pytest.raises(StoreFault, match="rows were to be updated"):
        await append(store, last, creation())
    assert await read_jobs(store, [job.id, other.id]) == {job.id: job, other.id: other}
    assert (await store.list_jobs(JobQuery(user_id=None), before=None, limit=9)).jobs == [
        other,
        job,
    ]


async def test_the_feed_is_paged_without_gaps_or_repetitions(store: SqlStore) -> None:
    jobs = [await moved(store, await saved(store), PROCESSING) for _ in range(5)]
    for progress in (10, 20):
        jobs = [await reported(store, job, progress) for job in jobs]
    ended = [await moved(store, job, COMPLETED) for job in jobs[1:]]
    for job in ended[:2]:
        await append(store, step(job, Delete(job_id=job.id, user_id="ada")))
    for limit in (1, 2, 3, 5, 100):
        changes = await all_changes(store, limit=limit)
        steps = assert_told_once_and_in_order(changes)
        final = {change.job.id: change for change in changes}
        assert [final[job.id].deleted for job in jobs] == [False, True, True, False, False]
        assert steps[jobs[0].id] == [2]
        assert [steps[job.id] for job in ended] == [[2, 5]] * 4
        assert [final[job.id].job for job in (jobs[0], *ended[2:])] == [jobs[0], *ended[2:]]


async def test_the_feed_of_one_owner_is_complete(store: SqlStore) -> None:
    ours, theirs = [], []
    for _ in range(4):
        ours.append(await moved(store, await saved(store, "ada"), PROCESSING))
        theirs.append(await moved(store, await saved(store, "bob"), PROCESSING))
    ours = [await reported(store, job, 50) for job in ours]
    await moved(store, theirs[0], COMPLETED)
    gone = await moved(store, ours[0], COMPLETED)
    await append(store, step(gone, Delete(job_id=gone.id, user_id="ada")))
    for limit in (1, 3, 100):
        changes = await all_changes(store, limit=limit, user_id="ada")
        steps = assert_told_once_and_in_order(changes)
        assert {change.job.user_id for change in changes} == {"ada"}
        assert [steps[job.id] for job in ours] == [[2, 4], [2], [2], [2]]
        assert changes[-1].deleted
        assert changes[-1].job.id == gone.id


async def test_other_owners_changes_are_not_scanned(store: SqlStore, database: Database) -> None:
    """For any number of changes, and any statistics of the planner."""
    first = await saved(store)
    await append(store, *(creation("bob") for _ in range(2000)))
    last = await moved(store, await saved(store), PROCESSING)
    await execute(database, "ANALYZE")
    page = await store.changes_after(0, limit=10, user_id="ada")
    assert [change.job for change in page.changes] == [first, last]
    assert page.through == page.head.seq
    owned = Prepared(FeedStatements().owned_changes, database.dialect.sqlalchemy)
    values = owned.values({"seq": 0, "count": 5, "user_id": "bob"})
    found = await plan(database, owned.text, values)
    assert "ix_changes_user_id_seq" in found
    assert "ix_jobs_user_id_held" in found


async def test_a_reader_that_follows_concurrent_writers_misses_nothing(store: SqlStore) -> None:
    """Idea 3: a reader that has seen n can ask for everything after n and never miss one."""
    writers, rounds = 4, 2
    ended: list[JobId] = []

    async def write() -> None:
        for _ in range(rounds):
            decisions = [creation() for _ in range(3)]
            await append(store, *decisions)
            for decision in decisions:
                job = await moved(store, decision.job, PROCESSING)
                job = await reported(store, job, 50)
                ended.append((await moved(store, job, COMPLETED)).id)

    async def follow() -> list[Change]:
        seen: list[Change] = []
        after = 0
        while sum(change.job.status is COMPLETED for change in seen) < writers * rounds * 3:
            page = await store.changes_after(after, limit=random.randint(1, 9))
            seen += page.changes
            after = page.through
        return seen

    async with asyncio.TaskGroup() as tasks:
        following = [tasks.create_task(follow()) for _ in range(3)]
        for _ in range(writers):
            tasks.create_task(write())
    for reader in following:
        steps = assert_told_once_and_in_order(reader.result())
        assert sorted(steps) == sorted(ended)
        assert set(map(tuple, steps.values())) == {(2, 4)}


async def listed(
    store: SqlStore, until: int, after: ActivePosition | None = START_OF_ACTIVE, **options: object
) -> list[list[Job]]:
    """List active jobs, a page at a time."""
    found = []
    while after is not None:
        page = await store.active_jobs(after, until=until, **options)
        assert all(not change.transitions for change in page.changes)
        found.append([change.job for change in page.changes])
        after = page.next_after
    return found


async def test_active_jobs_are_listed_as_they_are_unless_they_changed_since(
    store: SqlStore,
) -> None:
    first, second, third = [await saved(store) for _ in range(3)]
    await finished(store)
    other = await saved(store, "bob")
    first = await moved(store, first, PROCESSING)
    head = (await store.feed_head()).seq
    assert await listed(store, head, limit=10) == [[first, second, third, other]]
    assert await listed(store, head, limit=3) == [[first, second, third], [other]]
    assert await listed(store, head, limit=10, user_id="ada") == [[first, second, third]]
    assert await listed(store, head, limit=2, user_id="ada") == [[first, second], [third]]
    await moved(store, second, PROCESSING)
    assert await listed(store, head, limit=2) == [[first], [third, other], []]
    assert await listed(store, head - 1, limit=10) == [[third, other]]


async def test_active_jobs_are_listed_by_their_ids(store: SqlStore) -> None:
    jobs = [await saved(store) for _ in range(3)]
    ended, other = await finished(store), await saved(store, "bob")
    head = (await store.feed_head()).seq
    ids = [*(job.id for job in jobs[::-2]), ended.id, other.id, JobId("nowhere")]
    for options, expected in (
        ({"limit": 10}, [[jobs[0], jobs[2], other]]),
        ({"limit": 2}, [[jobs[0], jobs[2]], [other]]),
        ({"limit": 10, "user_id": "ada"}, [[jobs[0], jobs[2]]]),
        ({"limit": 1, "user_id": "ada"}, [[jobs[0]], [jobs[2]], []]),
    ):
        assert await listed(store, head, ids=ids, **options) == expected
    await moved(store, jobs[0], PROCESSING)
    assert await listed(store, head, ids=ids, limit=10, user_id="ada") == [[jobs[2]]]


async def test_active_jobs_are_found_by_an_index_among_many_terminal_ones(
    store: SqlStore, database: Database
) -> None:
    count = 1000 if database.dialect.name == "postgresql" else 200
    created = await append(store, *(creation() for _ in range(count)))
    for target in (PROCESSING, COMPLETED):
        jobs = (await read_jobs(store, [change.job.id for change in created])).values()
        moves = (step(job, ChangeStatus(job_id=job.id, target=target)) for job in jobs)
        await append(store, *moves)
    await execute(database, "ANALYZE")
    statements = FeedStatements()
    values = {
        "after_user_id": "",
        "after_id": START_OF_ACTIVE.job_id,
        "user_id": "ada",
        "count": 5,
    }
    for statement in (statements.active_jobs, statements.owned_active_jobs):
        active = Prepared(statement, database.dialect.sqlalchemy)
        found = await plan(database, active.text, active.values(values))
        assert "ix_jobs_active" in found
        assert "Sort" not in found
        assert "TEMP B-TREE" not in found


async def test_deletions_are_compacted_oldest_first_and_an_older_cursor_is_refused(
    store: SqlStore,
) -> None:
    for _ in range(3):
        job = await finished(store)
        await append(store, step(job, Delete(job_id=job.id, user_id="ada")))
    deleted = [change.seq for change in await all_changes(store, limit=10) if change.deleted]
    # The clock of these tests is long past, so all are old; none is older than a century.
    assert await store.compact_deletions(Micros(10**17), limit=10) == 0
    assert await store.compact_deletions(Micros(10**9), limit=2) == 2
    head = await store.feed_head()
    assert head.compacted_seq == deleted[1]
    for seq in (0, deleted[1] - 1):
        with pytest.raises(FeedCompacted):
            await store.changes_after(seq, limit=10)
    page = await store.changes_after(deleted[1], limit=10)
    assert [change.job.version for change in page.changes] == [2, 3, 4]
    assert await store.compact_deletions(Micros(10**9), limit=2) == 1
    assert (await store.feed_head()).compacted_seq == deleted[2]


async def test_only_old_terminal_jobs_are_purgeable(store: SqlStore, database: Database) -> None:
    await moved(store, await saved(store), PROCESSING)
    old = [await finished(store) for _ in range(3)]
    ids = [job.id for job in old]
    first = await store.find_purgeable(Micros(10**9), after=0, limit=2)
    assert (first.jobs, first.more) == (ids[:2], True)
    rest = await store.find_purgeable(Micros(10**9), after=first.through, limit=2)
    assert (rest.jobs, rest.through, rest.more) == (ids[2:], 11, False)
    none = await store.find_purgeable(Micros(10**17), after=0, limit=10)
    # Nothing before the first end is read again.
    assert (none.jobs, none.through, none.more) == ([], 4, False)
    # One that ended a moment ago, by a clock that was wrong then, does not hide the others.
    async with store.transaction() as transaction:
        now = await transaction.now()
    await execute(database, f"UPDATE jobs SET complete_time = {now} WHERE id = '{old[0].id}'")
    found = await store.find_purgeable(Micros(10**9), after=0, limit=10)
    assert (found.jobs, found.later, found.through) == (ids[1:], [(now, ids[0])], 11)


@pytest.mark.parametrize("tuning", [Tuning(scanned_ends=2)])
async def test_a_search_for_purgeable_jobs_reads_a_few_changes_at_a_time(store: SqlStore) -> None:
    one, other = [(await finished(store)).id for _ in range(2)]
    found = [await store.find_purgeable(Micros(10**9), after=seq, limit=9) for seq in (0, 3, 6)]
    assert [(list(part.jobs), part.through, part.more) for part in found] == [
        ([one], 3, True),
        ([other], 6, True),
        ([], 6, False),
    ]


async def test_the_epoch_is_renewed_once_for_all_servers_that_ask(store: SqlStore) -> None:
    head = await store.feed_head()
    first, second = [await store.renew_epoch(head.epoch) for _ in range(2)]
    assert first.epoch != head.epoch
    assert second == first
    assert (first.seq, first.compacted_seq) == (head.seq, head.compacted_seq)


async def test_the_identity_of_an_unchanged_database_is_verified(
    store: SqlStore, database: Database
) -> None:
    head = await store.verify_identity()
    assert await store.verify_identity() == head
    await execute(database, "UPDATE feed SET database_identity = 'another cluster'")
    assert (await store.verify_identity()).epoch != head.epoch


async def test_after_any_failed_read_the_database_identity_is_verified(
    store: SqlStore, database: Database
) -> None:
    """The tail need not have seen it: other reads replace the connections that broke."""
    head = await store.verify_identity()
    await execute(database, "UPDATE feed SET database_identity = 'another cluster'")
    assert (await store.feed_head()).epoch == head.epoch
    with pytest.raises(StoreUnavailable), out_of_reach(database):
        await read_jobs(store, [creation().job.id])
    verified = await store.feed_head()
    assert verified.epoch != head.epoch
    assert await store.feed_head() == verified
