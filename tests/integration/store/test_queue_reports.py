"""Counts, and what keeps a job waiting, as the store reads them in one snapshot."""

from sqlalchemy import text

from jobledger_server.domain.commands import Cancel, Claim
from jobledger_server.domain.job import JobId, JobStatus, Micros
from jobledger_server.domain.limits import MAX_REPORTED_REASONS
from jobledger_server.domain.waiting import KeyPaused, LimitReached, Queued, wait_reasons
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.queue_store import EndedCount, PhaseCounts, TypeStats
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from tests.support.ledger_calls import apply, claim_jobs, created

FAR = Micros(3600_000_000)


async def claimed(ledger: Ledger, job_type: str = "render", count: int = 1) -> list[JobId]:
    command = Claim(
        worker_id="w", job_types=frozenset({job_type}), max_jobs=count, lease_duration=FAR
    )
    return [job.id for job in await claim_jobs(ledger, command)]


async def stats_of(store: SqlStore, job_type: str) -> TypeStats:
    (found,) = (await store.queue_reports.stats(limit=1, job_types=[job_type])).types
    return found


async def written(database: Database, statement: str, **values: object) -> None:
    async with database.writer.begin() as connection:
        await connection.execute(text(statement), values)


async def test_each_job_is_counted_once_by_its_type_priority_and_phase(
    store: SqlStore, ledger: Ledger
) -> None:
    await store.queue_settings.set_limit("k", 1)
    for _ in range(3):
        await created(ledger, concurrency_key="k", priority=9)
    await created(ledger, priority=2)
    later = (await stats_of(store, "render")).oldest
    assert later is not None
    await created(ledger, schedule_time=later + FAR)
    await created(ledger, "export")
    assert len(await claimed(ledger, count=4) + await claimed(ledger, count=4)) == 2
    found = await store.queue_reports.stats(limit=9)
    assert [each.job_type for each in found.types] == ["export", "render"]
    assert found.types[1].priorities == {
        9: PhaseCounts(blocked=2, held=1),
        5: PhaseCounts(scheduled=1),
        2: PhaseCounts(held=1),
    }
    assert list(found.types[1].priorities) == [9, 5, 2]
    assert found.types[1].total == PhaseCounts(blocked=2, scheduled=1, held=2)


async def test_a_tenant_is_counted_apart_and_others_types_are_not_named(
    store: SqlStore, ledger: Ledger
) -> None:
    await created(ledger)
    await created(ledger, "export", fairness_key="acme")
    await created(ledger, fairness_key="acme", priority=7)
    await created(ledger, "secret", user_id="bob")
    page = await store.queue_reports.stats(limit=9, fairness_key="acme")
    assert [each.job_type for each in page.types] == ["export", "render"]
    assert page.types[1].priorities == {7: PhaseCounts(ready=1)}
    assert page.types[1].oldest is None


async def test_a_page_names_the_types_with_jobs_or_pauses_or_recent_ends_after_the_last(
    store: SqlStore, ledger: Ledger
) -> None:
    for name in ("b", "d", "e"):
        await created(ledger, name)
    ending = await created(ledger, "c")
    await apply(ledger, Cancel(job_id=ending.id, user_id="ada", reason=""))
    await store.queue_settings.pause_type("a", actor="", reason="")
    names = []
    while True:
        page = await store.queue_reports.stats(limit=2, after=names[-1] if names else "")
        names += [each.job_type for each in page.types]
        if not page.more:
            break
    assert names == ["a", "b", "c", "d", "e"]
    asked = await store.queue_reports.stats(limit=2, after="b", job_types=["b", "none", "e", "f"])
    assert ([each.job_type for each in asked.types], asked.more) == (["e", "f"], True)


async def test_the_oldest_wait_is_that_of_the_oldest_ready_job_since_it_became_due(
    store: SqlStore, ledger: Ledger, database: Database
) -> None:
    assert (await stats_of(store, "render")).oldest is None
    old = await created(ledger, user_id="bob", priority=1)
    await created(ledger, user_id="ada")
    assert (await stats_of(store, "render")).oldest == old.create_time
    await written(database, "UPDATE jobs SET schedule_time = create_time + 1")
    assert (await stats_of(store, "render")).oldest == old.create_time + 1
    await claimed(ledger, count=9)
    assert (await stats_of(store, "render")).oldest is None


async def test_the_oldest_wait_of_a_queue_is_that_of_its_first_job_even_if_that_became_due_last(
    store: SqlStore, ledger: Ledger, database: Database
) -> None:
    """The first job goes next. PostgreSQL gives the time of the wait the name of a column."""
    first, second = [await created(ledger) for _ in range(2)]
    due = second.create_time + 1
    await written(
        database, "UPDATE jobs SET schedule_time = :due WHERE id = :id", due=due, id=first.id
    )
    assert (await stats_of(store, "render")).oldest == due


async def test_ends_are_counted_for_a_minute_and_an_hour_and_the_rarest_reasons_together(
    store: SqlStore, database: Database
) -> None:
    now = (await store.queue_reports.stats(limit=1)).time
    step = now // 10_000_000 * 10_000_000

    async def ended(seconds: int, count: int, *reasons: str, job_type: str = "render") -> None:
        statement = "INSERT INTO ended VALUES (:job_type, :time, 'FAILED', :reason, :count)"
        common = {"job_type": job_type, "time": step - seconds * 1_000_000, "count": count}
        rows = [{**common, "reason": reason} for reason in reasons]
        async with database.writer.begin() as connection:
            await connection.execute(text(statement), rows)

    await ended(0, 1, "A")
    await ended(50, 1, "A")
    await ended(80, 10, "A")
    await ended(3590, 3, "B")
    await ended(3620, 100, "B")
    found = await stats_of(store, "render")
    assert found.ended_last_minute == [EndedCount(JobStatus.FAILED, "A", 2)]
    assert found.ended_last_hour == [
        EndedCount(JobStatus.FAILED, "A", 12),
        EndedCount(JobStatus.FAILED, "B", 3),
    ]
    await ended(100, 2, *(f"C{number:03}" for number in range(MAX_REPORTED_REASONS)))
    found = await stats_of(store, "render")
    assert len(found.ended_last_hour) == MAX_REPORTED_REASONS + 1
    assert EndedCount(JobStatus.FAILED, "OTHER", 4) in found.ended_last_hour
    assert sum(each.count for each in found.ended_last_hour) == 15 + 200
    await ended(100, 1, "RARE", job_type="pack")
    both = await store.queue_reports.stats(limit=2, job_types=["pack", "render"])
    assert [each.ended_last_hour for each in both.types] == [
        [EndedCount(JobStatus.FAILED, "RARE", 1)],
        found.ended_last_hour,
    ]


async def test_a_type_is_polled_until_the_last_poller_expires(
    store: SqlStore, database: Database, ledger: Ledger
) -> None:
    jobs = [await created(ledger, job_type) for job_type in ("render", "pack")]

    async def polled() -> list[bool]:
        found = [await store.queue_reports.wait_facts(job.id, user_id=None) for job in jobs]
        return [facts is not None and facts.polled for facts in found]

    now = (await store.queue_reports.stats(limit=1)).time
    for server, expire_time in (("a", now - 1), ("b", now + FAR)):
        values = {"server": server, "time": expire_time}
        await written(database, "INSERT INTO pollers VALUES (:server, 'render', :time)", **values)
    assert (await stats_of(store, "render")).polled
    assert await polled() == [True, False]
    await written(database, "DELETE FROM pollers WHERE server = 'b'")
    assert not (await stats_of(store, "render")).polled
    assert await polled() == [False, False]


async def test_a_waiting_job_knows_its_place_and_a_blocked_one_its_holders(
    store: SqlStore, ledger: Ledger
) -> None:
    reports = store.queue_reports
    await store.queue_settings.set_limit("k", 1)
    own = await created(ledger, concurrency_key="k:1")
    other = await created(ledger, user_id="bob", concurrency_key="k:1")
    holder = JobId((await claimed(ledger, count=2))[0])
    blocked = other if holder == own.id else own
    facts = await reports.wait_facts(blocked.id, user_id=None)
    assert facts is not None
    assert LimitReached("k:1", 1, 1, [holder]) in wait_reasons(facts)
    theirs = await reports.wait_facts(blocked.id, user_id=blocked.user_id)
    assert theirs is not None
    assert LimitReached("k:1", 1, 1, []) in wait_reasons(theirs)
    assert await reports.wait_facts(blocked.id, user_id="eve") is None
    assert await reports.wait_facts(JobId("no-id"), user_id=None) is None
    await store.queue_settings.pause_key("k:1", actor="x", reason="r")
    await store.queue_settings.pause_key("k", actor="y", reason="r")
    paused = await reports.wait_facts(blocked.id, user_id=None)
    assert paused is not None
    named = [each for each in wait_reasons(paused) if isinstance(each, KeyPaused)]
    assert [(each.concurrency_key, each.pause.actor) for each in named] == [
        ("k:1", "x"),
        ("k", "y"),
    ]

    jobs = [await created(ledger, "place", priority=p) for p in (9, 9, 5, 5, 5, 1)]
    await created(ledger, "place", user_id="bob")
    last = await reports.wait_facts(jobs[4].id, user_id="ada")
    assert last is not None
    assert last.place == Queued(ahead=2, capped=False, higher_priority=2, tenants=2)
