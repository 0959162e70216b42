"""Claims: each job to one worker, the oldest of its queue first, and none is left."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from sqlalchemy import text

from jobledger_server.check.invariants import violations
from jobledger_server.database.url import parse_url
from jobledger_server.domain.commands import (
    Cancel,
    ChangeStatus,
    Delete,
    Expire,
    Release,
    Report,
)
from jobledger_server.domain.errors import LeaseLost
from jobledger_server.domain.job import Instant, Job, JobId, JobStatus, Micros, Payload
from jobledger_server.domain.limits import MAX_ANSWER_BYTES
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.maintenance.reaper import Reaper
from jobledger_server.rpc.messages import job_bytes
from jobledger_server.sql import transaction
from jobledger_server.sql.database import Database, open_database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.sql.sqlite import sqlite_driver
from jobledger_server.sql.statements import statements_for
from jobledger_server.store import Change, Claimable, StoreConflict
from jobledger_server.tuning import Tuning
from tests.support.databases import both_databases, execute, several_servers, sqlite_only
from tests.support.ledger_calls import apply, claim, claim_jobs, created
from tests.support.query_plans import plan
from tests.support.seeding import seed, seeded_id
from tests.support.store_writer import read_job, read_jobs

SECOND = 1_000_000
LEASE = Micros(60 * SECOND)


PassTime = Callable[[Job, float], Awaitable[None]]


@pytest.fixture
def pass_time(database: Database) -> PassTime:
    """Move a job's times back by `seconds`, as if these had passed since."""

    async def pass_time(job: Job, seconds: float) -> None:
        shift = int(seconds * SECOND)
        columns = ("lease", "stall", "queue", "run")
        times = [f"{column}_expire_time" for column in columns]
        times += ["cancel_request_time", "schedule_time", "retry_time", "deadline"]
        moved = ", ".join(f"{time} = {time} - {shift}" for time in times)
        statement = f"UPDATE jobs SET {moved} WHERE id = '{job.id}'"
        await execute(database, statement)

    return pass_time


async def test_claims_get_the_oldest_jobs_of_each_type_first(ledger: Ledger) -> None:
    made = [await created(ledger, job_type) for job_type in "abaacb"]
    assert await claim_jobs(ledger, claim("x")) == []
    first = await claim_jobs(ledger, claim("a", "b", max_jobs=3))
    for job_type in "ab":
        ids = [job.id for job in first if job.job_type == job_type]
        assert ids
        assert ids == [job.id for job in made if job.job_type == job_type][: len(ids)]
    rest = await claim_jobs(ledger, claim("a", "b", "c", max_jobs=9))
    assert {job.id for job in (*first, *rest)} == {job.id for job in made}
    assert await claim_jobs(ledger, claim("a", "b", "c", max_jobs=9)) == []


async def test_a_worker_that_claims_one_job_at_a_time_gets_jobs_of_each_of_its_types(
    ledger: Ledger,
) -> None:
    types = ["render", "pack", "scan"]
    for job_type in types * 20:
        await created(ledger, job_type)
    # One of three types drawn at random is never drawn in one of four million runs.
    claimed = [await claim_jobs(ledger, claim(*types)) for _ in range(40)]
    assert {job.job_type for (job,) in claimed} == set(types)


async def test_claims_that_arrive_together_share_the_jobs_out(ledger: Ledger) -> None:
    """Of one set of types and of overlapping ones, in one batch."""
    made = [await created(ledger, job_type) for job_type in "ab" * 5]
    got = await asyncio.gather(
        claim_jobs(ledger, claim("a", max_jobs=2)),
        claim_jobs(ledger, claim("a", "b", max_jobs=3)),
        claim_jobs(ledger, claim("b", "a", max_jobs=3)),
        claim_jobs(ledger, claim("a", "b", "c", max_jobs=2)),
    )
    ids = [job.id for jobs in got for job in jobs]
    assert sorted(ids) == [job.id for job in made]


async def test_a_claim_of_many_jobs_leaves_some_for_the_others(ledger: Ledger) -> None:
    for _ in range(10):
        await created(ledger)
    got = await asyncio.gather(
        claim_jobs(ledger, claim(max_jobs=30)),
        claim_jobs(ledger, claim(max_jobs=30)),
        claim_jobs(ledger, claim()),
    )
    assert [len(jobs) for jobs in got] == [5, 4, 1]


def known(job: Job) -> Claimable:
    return Claimable(job.id, job.job_type, 0, job.priority, job.tenant)


@sqlite_only
async def test_a_claim_that_knows_the_oldest_job_does_not_search_for_it(
    ledger: Ledger, searches: list[Mapping[str, int]]
) -> None:
    made = [await created(ledger) for _ in range(2)]
    (job,) = await claim_jobs(ledger, claim(), oldest=known(made[0]))
    assert (job.id, job.attempt, searches) == (made[0].id, 1, [])


@sqlite_only
async def test_a_claim_whose_caller_leaves_during_the_search_gets_no_job(
    ledger: Ledger, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [await created(ledger, job_type) for job_type in "ab"]
    left = asyncio.Event()
    find = SqlStore.find_claimable

    async def found(self: SqlStore, limits: Mapping[str, int], *, limit: int) -> list[Claimable]:
        claimable = await find(self, limits, limit=limit)
        left.set()
        return claimable

    monkeypatch.setattr(SqlStore, "find_claimable", found)
    leaving, staying = await asyncio.gather(
        claim_jobs(ledger, claim("a"), wanted=lambda: not left.is_set()),
        claim_jobs(ledger, claim("b")),
    )
    assert (leaving, [job.id for job in staying]) == ([], [made[1].id])
    assert (await read_jobs(store, [made[0].id]))[made[0].id].attempt == 0


@sqlite_only
async def test_claims_that_know_the_same_job_get_one_each(ledger: Ledger) -> None:
    made = [await created(ledger) for _ in range(2)]
    got = await asyncio.gather(
        *(claim_jobs(ledger, claim(worker=worker), oldest=known(made[0])) for worker in "vw")
    )
    assert sorted(job.id for jobs in got for job in jobs) == [job.id for job in made]


@sqlite_only
async def test_claims_search_for_the_oldest_jobs_unless_each_of_a_batch_knows_one(
    ledger: Ledger,
) -> None:
    made = [await created(ledger) for _ in range(3)]
    got = await asyncio.gather(
        claim_jobs(ledger, claim(), oldest=known(made[2])), claim_jobs(ledger, claim(worker="v"))
    )
    assert sorted(job.id for jobs in got for job in jobs) == [job.id for job in made[:2]]


async def test_a_job_cancelled_during_a_claim_is_either_claimed_or_failed(
    ledger: Ledger, store: SqlStore
) -> None:
    for _ in range(10):
        job = await created(ledger)
        next_job = await created(ledger)
        _, (given,) = await asyncio.gather(
            apply(ledger, Cancel(job_id=job.id, user_id="ada")), claim_jobs(ledger, claim())
        )
        after = (await read_jobs(store, [job.id]))[job.id]
        assert after.cancel_request_time is not None
        if given.id == job.id:
            assert after.leased
            assert [each.id for each in await claim_jobs(ledger, claim())] == [next_job.id]
        else:
            assert given.id == next_job.id
            assert after.status is JobStatus.FAILED


async def test_a_job_deleted_during_a_claim_stays_deleted(ledger: Ledger, store: SqlStore) -> None:
    await created(ledger)
    (job,) = await claim_jobs(ledger, claim())
    await apply(ledger, Release(job_id=job.id, attempt=1))
    await asyncio.gather(
        apply(ledger, ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED)),
        apply(ledger, Delete(job_id=job.id, user_id="ada")),
        claim_jobs(ledger, claim()),
    )
    assert await claim_jobs(ledger, claim()) == []
    assert await read_jobs(store, [job.id]) == {}


async def test_a_claim_that_finds_nothing_waits_for_no_writer(
    ledger: Ledger, store: SqlStore
) -> None:
    """And no writer waits for it: it begins no transaction."""
    job = await created(ledger, "other")
    async with asyncio.timeout(20), store.transaction() as writing:
        await writing.load_jobs([job.id])
        assert await claim_jobs(ledger, claim()) == []


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, int]]:
    """The types of every search for claimable jobs."""
    made: list[Mapping[str, int]] = []
    find = SqlStore.find_claimable

    async def noted(self: SqlStore, limits: Mapping[str, int], *, limit: int) -> list[Claimable]:
        made.append(limits)
        return await find(self, limits, limit=limit)

    monkeypatch.setattr(SqlStore, "find_claimable", noted)
    return made


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Every job that a transaction has read as a whole."""
    jobs: list[Job] = []
    read = transaction.change_from_row

    def noting(row: Any) -> Change:
        change = read(row)
        jobs.append(change.job)
        return change

    monkeypatch.setattr(transaction, "change_from_row", noting)
    return jobs


TYPES = [f"t-{number}" for number in range(Tuning().claim_batch)]


@sqlite_only
@pytest.mark.parametrize("tuning", [Tuning(claim_pause_seconds=0.1)])
async def test_empty_claims_are_answered_later_while_a_full_batch_waits(ledger: Ledger) -> None:
    full = claim(*TYPES)
    began = time.monotonic()
    assert await asyncio.gather(claim_jobs(ledger, full), claim_jobs(ledger, full)) == [[], []]
    assert time.monotonic() - began >= 0.1


@sqlite_only
@pytest.mark.parametrize("tuning", [Tuning(claim_pause_seconds=3600)])
async def test_no_other_claims_are_answered_later(ledger: Ledger) -> None:
    """Neither where fewer wait, nor those that found jobs."""
    full, nearly_full = claim(*TYPES), claim(*TYPES[1:])
    assert await asyncio.gather(claim_jobs(ledger, full), claim_jobs(ledger, nearly_full)) == [
        [],
        [],
    ]
    jobs = [await created(ledger, TYPES[0]) for _ in range(2)]
    got = await asyncio.gather(claim_jobs(ledger, full), claim_jobs(ledger, full))
    assert [[job.id] for job in jobs] == [[job.id for job in each] for each in got]


@both_databases
async def test_a_claim_returns_and_reads_no_more_bytes_than_an_answer_holds(
    ledger: Ledger, store: SqlStore, loaded: list[Job]
) -> None:
    made = [await created(ledger, parameters=Payload(bytes(250_000))) for _ in range(17)]
    loaded.clear()
    first = await claim_jobs(ledger, claim(max_jobs=60))
    assert [job.id for job in first] == [job.id for job in made[:12]]
    assert sum(job.parameters_bytes for job in first) <= MAX_ANSWER_BYTES
    assert len(loaded) == 12
    # No attempt of those that did not fit is used up.
    left = await read_jobs(store, [job.id for job in made[12:]])
    assert {job.attempt for job in left.values()} == {0}
    assert [job.id for job in await claim_jobs(ledger, claim(max_jobs=60))] == [
        job.id for job in made[12:]
    ]


async def test_a_claim_counts_the_labels_of_its_jobs(ledger: Ledger) -> None:
    labels = {f"key-{number}": "\U0001f600" * 255 for number in range(32)}
    for _ in range(40):
        await created(ledger, labels=labels)
    claimed = await claim_jobs(ledger, claim(max_jobs=60))
    assert 1 < len(claimed) < 40
    assert sum(len(job_bytes(job)) for job in claimed) <= MAX_ANSWER_BYTES


@both_databases
async def test_claims_that_arrive_together_read_no_more_bytes_than_one_transaction_may(
    ledger: Ledger, store: SqlStore, loaded: list[Job]
) -> None:
    for _ in range(60):
        await created(ledger, parameters=Payload(bytes(250_000)))
    loaded.clear()
    commits: list[int] = []

    def committed(changes: Sequence[Change]) -> None:
        commits.append(len(changes))

    async with Ledger(store, committed, max_waiting=100) as claiming:
        got = await asyncio.gather(*(claim_jobs(claiming, claim(max_jobs=1)) for _ in range(60)))
    assert [len(jobs) for jobs in got] == [1] * 60
    assert len(loaded) == 60
    assert max(commits) <= Tuning().claim_batch_bytes // 250_000


@both_databases
async def test_reports_do_not_make_a_claim_read_more(ledger: Ledger, loaded: list[Job]) -> None:
    await asyncio.gather(*(created(ledger, "busy") for _ in range(40)))
    running = await claim_jobs(ledger, claim("busy", max_jobs=40))
    await asyncio.gather(*(created(ledger) for _ in range(50)))
    loaded.clear()
    reports = (Report(job_id=job.id, attempt=1, progress=5) for job in running)
    *_, given = await asyncio.gather(
        *(apply(ledger, report) for report in reports), claim_jobs(ledger, claim())
    )
    assert len(given) == 1
    # The running jobs are cached, and of the claimable ones one is read.
    assert [job.id for job in loaded] == [job.id for job in given]


async def test_overdue_jobs_do_not_block_claimable_ones(
    ledger: Ledger, pass_time: PassTime
) -> None:
    overdue = await created(ledger)
    await pass_time(overdue, 8 * 24 * 3600)
    job = await created(ledger)
    assert [given.id for given in await claim_jobs(ledger, claim())] == [job.id]
    assert await claim_jobs(ledger, claim()) == []


@sqlite_only
async def test_a_job_that_cannot_expire_does_not_keep_the_others(
    ledger: Ledger, store: SqlStore, pass_time: PassTime, database: Database
) -> None:
    made = [await created(ledger) for _ in range(5)]
    for job in made:
        await pass_time(job, 8 * 24 * 3600)
    trigger = f"BEFORE UPDATE ON jobs WHEN old.id = '{made[1].id}' BEGIN SELECT"
    await execute(database, f"CREATE TRIGGER refused {trigger} RAISE(ABORT, 'refused'); END")
    with pytest.raises(StoreConflict, match="refused"):
        await Reaper(ledger).reap()
    waiting = {
        job.id
        for job in (await read_jobs(store, [job.id for job in made])).values()
        if job.phase is not None
    }
    assert waiting == {made[1].id}


async def test_50_claimers_claim_each_of_1000_jobs_exactly_once(
    ledger: Ledger, other: Ledger
) -> None:
    total = 1_000
    made = await asyncio.gather(*(created(ledger, f"t{i % 7}") for i in range(total)))
    given: list[str] = []
    types = [f"t{i}" for i in range(7)]

    async def claimer(number: int, through: Ledger) -> None:
        wanted = claim(*types, worker=f"w{number}", max_jobs=1 + number % 20)
        while got := await claim_jobs(through, wanted):
            given.extend(job.id for job in got)

    through = itertools.cycle((ledger, other))
    await asyncio.gather(*(claimer(i, next(through)) for i in range(50)))
    # On PostgreSQL the last claims of one server may have skipped jobs that the other had locked.
    while got := await claim_jobs(ledger, claim(*types, max_jobs=100)):
        given.extend(job.id for job in got)
    assert len(given) == total
    assert set(given) == {job.id for job in made}


async def test_a_postponed_deadline_is_found_and_corrected_once(
    ledger: Ledger, store: SqlStore, database: Database, published: list[Change]
) -> None:
    """A report leaves the deadline in the row as it is, since that is indexed."""

    async def deadline_in_row() -> int:
        async with database.reader.connect() as connection:
            return (await connection.execute(text("SELECT deadline FROM jobs"))).scalar_one()

    await created(ledger)
    (job,) = await claim_jobs(ledger, claim())
    assert await deadline_in_row() == job.lease_expire_time
    job = (await apply(ledger, Report(job_id=job.id, attempt=1, progress=5))).job
    assert await deadline_in_row() < (job.lease_expire_time or 0)
    await execute(database, "UPDATE jobs SET deadline = 1")
    published.clear()
    assert await Reaper(ledger).reap() == 1
    assert await deadline_in_row() == job.lease_expire_time
    assert await Reaper(ledger).reap() == 0
    assert await read_jobs(store, [job.id]) == {job.id: job}
    assert published == []


@pytest.mark.parametrize(
    ("fields", "start", "seconds", "reason"),
    [
        ({"queue_timeout": Micros(10 * SECOND)}, False, 11, "QUEUE_EXPIRED"),
        ({"run_timeout": Micros(10 * SECOND)}, True, 11, "RUN_EXPIRED"),
        ({"max_attempts": 1}, True, 61, "LEASE_EXPIRED"),
        ({"max_attempts": 1, "stall_timeout": Micros(10 * SECOND)}, True, 11, "STALLED"),
        ({}, False, 7 * 24 * 3600 + 1, "QUEUE_EXPIRED"),
    ],
)
async def test_the_reaper_fails_every_expired_job(
    ledger: Ledger,
    store: SqlStore,
    published: list[Change],
    fields: dict[str, Any],
    start: bool,  # noqa: FBT001
    seconds: float,
    reason: str,
    pass_time: PassTime,
) -> None:
    job = await created(ledger, **fields)
    if start:
        (job,) = await claim_jobs(ledger, claim())
    await pass_time(job, seconds)
    assert await Reaper(ledger).reap() == 1
    stored = await read_job(store, job.id)
    ended, steps = stored.job, stored.transitions
    assert (ended.status, ended.error and ended.error.reason) == (JobStatus.FAILED, reason)
    # Never past PROCESSING, even from the queue.
    assert [(s.from_status.value, s.to_status.value) for s in steps] == [
        ("QUEUED", "PROCESSING"),
        ("PROCESSING", "FAILED"),
    ]
    assert [step for change in published for step in change.transitions] == list(steps)
    assert [change.seq for change in published] == list(range(1, len(published) + 1))
    assert await Reaper(ledger).reap() == 0


async def test_of_a_completion_and_an_expiry_only_the_first_takes_effect(
    ledger: Ledger, other: Ledger, store: SqlStore, pass_time: PassTime
) -> None:
    """Both orders, forced; then both at once through two servers, many times."""
    complete_first = await created(ledger, max_attempts=1)
    expire_first = await created(ledger, max_attempts=1)
    for job in await claim_jobs(ledger, claim(max_jobs=2)):
        await pass_time(job, 61)
    done = ChangeStatus(job_id=complete_first.id, target=JobStatus.COMPLETED, attempt=1)
    assert (await apply(ledger, done)).changed
    assert not (await apply(ledger, Expire(job_id=complete_first.id))).changed
    assert (await apply(ledger, Expire(job_id=expire_first.id))).changed
    with pytest.raises(LeaseLost):
        await apply(
            ledger, ChangeStatus(job_id=expire_first.id, target=JobStatus.COMPLETED, attempt=1)
        )

    for _ in range(10):
        await created(ledger, max_attempts=1)
        (job,) = await claim_jobs(ledger, claim())
        await pass_time(job, 61)
        finish = ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED, attempt=1)
        finished, expired = await asyncio.gather(
            apply(ledger, finish), apply(other, Expire(job_id=job.id)), return_exceptions=True
        )
        stored = await read_job(store, job.id)
        after, steps = stored.job, stored.transitions
        if isinstance(finished, LeaseLost):
            assert (after.status, after.error and after.error.reason) == (
                JobStatus.FAILED,
                "LEASE_EXPIRED",
            )
        else:
            assert after.status is JobStatus.COMPLETED
            assert not expired.changed
        assert len(steps) == 2
        assert after.version == 3


async def test_a_heartbeat_racing_expiry_either_renews_the_lease_or_reports_its_loss(
    ledger: Ledger, other: Ledger, store: SqlStore, pass_time: PassTime
) -> None:
    for _ in range(10):
        await created(ledger, max_attempts=5)
        (job,) = await claim_jobs(ledger, claim())
        await pass_time(job, 61)
        beat, expired = await asyncio.gather(
            apply(ledger, Report(job_id=job.id, attempt=1)),
            apply(other, Expire(job_id=job.id)),
            return_exceptions=True,
        )
        after = (await read_jobs(store, [job.id]))[job.id]
        if isinstance(beat, LeaseLost):
            assert expired.changed
            assert not after.leased
            await claim_jobs(ledger, claim())
        else:
            assert not expired.changed
            assert after.leased
        await apply(ledger, ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED))


@several_servers
async def test_the_reapers_of_several_servers_share_the_work(
    ledger: Ledger, database: Database, database_url: str
) -> None:
    """Each skips what another one has locked, instead of waiting for it and doing it again."""
    await asyncio.gather(*(created(ledger, queue_timeout=Micros(SECOND)) for _ in range(600)))
    await execute(database, "UPDATE jobs SET deadline = 1, queue_expire_time = 1")
    steps: list[int] = []

    async def reap(through: Ledger) -> None:
        while found := await Reaper(through).reap():
            steps.append(found)

    async with AsyncExitStack() as stack:
        ledgers = []
        for _ in range(4):
            each = open_database(parse_url(database_url))
            stack.push_async_callback(each.close)
            of_server = Ledger(SqlStore(each), lambda _: None, max_waiting=1000)
            ledgers.append(await stack.enter_async_context(of_server))
        await asyncio.gather(*map(reap, ledgers))
    assert sum(steps) == 600, "each job was found by one reaper"
    assert len(steps) <= 8, "and few were left by those that found them locked"
    assert await violations(database) == []


async def test_of_a_cancellation_and_a_completion_only_one_takes_effect(
    ledger: Ledger, other: Ledger, store: SqlStore
) -> None:
    for _ in range(10):
        await created(ledger)
        (job,) = await claim_jobs(ledger, claim())
        asked, finished = await asyncio.gather(
            apply(other, Cancel(job_id=job.id, user_id="ada", reason="enough")),
            apply(ledger, ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED, attempt=1)),
        )
        after = (await read_jobs(store, [job.id]))[job.id]
        assert after.status is JobStatus.COMPLETED
        assert finished.job.status is JobStatus.COMPLETED
        assert asked.changed == (after.cancel_request_time is not None)


async def test_the_databases_clock_decides_even_if_the_servers_clock_is_wrong(
    ledger: Ledger, store: SqlStore, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    """On PostgreSQL a server an hour ahead neither expires nor extends anything."""
    if database.dialect.name == "sqlite":
        # On SQLite the machine's clock is the database's, and decides.
        await created(ledger, queue_timeout=Micros(1800 * SECOND))
        skewed = (sqlite_driver.machine_clock() + 3600 * SECOND) * 1000
        monkeypatch.setattr(sqlite_driver.time, "time_ns", lambda: skewed)
        async with store.transaction() as transaction:
            assert len(await transaction.find_overdue(limit=10)) == 1
        return
    await created(ledger)
    (job,) = await claim_jobs(ledger, claim())
    real = time.time_ns
    for skew in (3600, -3600):
        with monkeypatch.context() as patch:
            patch.setattr(time, "time_ns", lambda skew=skew: real() + skew * 10**9)
            patch.setattr(time, "time", lambda skew=skew: real() / 1e9 + skew)
            assert await Reaper(ledger).reap() == 0
            report = Report(job_id=job.id, attempt=1, progress=job.progress + 1)
            job = (await apply(ledger, report)).job
            made = await created(ledger)
        for instant in (job.update_time, made.create_time):
            assert abs(instant - real() // 1000) < 60 * SECOND
        assert job.lease_expire_time == Instant(job.update_time + LEASE)


async def test_due_and_claimable_jobs_are_found_by_an_index(
    ledger: Ledger, database: Database
) -> None:
    """A plan, not a time: no poll reads jobs that are not due and do not wait."""
    dialect = database.dialect
    await seed(database, 20_000 if dialect.name == "postgresql" else 2000)
    overdue = statements_for(dialect).blocking.overdue
    due = await plan(database, overdue.text, overdue.values({"count": 100}))
    types = {"few": 1, "none": 1, "many": 5}
    # There are so few queues that PostgreSQL would rather read all.
    waiting = await plan(database, *dialect.find_queues(types, limit=5), "enable_seqscan")
    waiting += await plan(database, *dialect.find_ready({1: 5, 7: 1}))
    locked = await plan(database, *dialect.lock_ready({JobId(seeded_id(1)): 5}))
    assert "ix_jobs_deadline" in due
    assert (
        "Index Cond: (deadline <" in due
        or "(deadline>? AND deadline<?)" in due
        or ("(deadline<?)" in due)
    )
    for ready in (waiting, locked):
        assert "ix_jobs_ready" in ready
        assert "Seq Scan" not in ready
        assert "SCAN jobs" not in ready
    assert "ix_queues_claimable" in waiting
    assert "SCAN queues" not in waiting
    assert "pk_jobs" not in due + waiting
    job = await created(ledger, "few")
    assert [given.id for given in await claim_jobs(ledger, claim("few"))] == [job.id]
