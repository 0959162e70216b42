"""Who goes next: priority, fairness, limits and unique keys, in the claim's own transaction."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import ChangeStatus, Create, CreateAll
from jobledger_server.domain.errors import ConcurrencyLimitReached, Paused, UniqueKeyTaken
from jobledger_server.domain.job import Job, JobStatus, Phase
from jobledger_server.domain.queues import Queue, next_queues
from jobledger_server.ledger.claim_waiters import ClaimWaiters
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.maintenance.unblocker import Unblocker
from jobledger_server.sql import sql_store
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.tuning import Tuning
from tests.support.databases import both_databases, several_servers
from tests.support.gated_store import GatedStore
from tests.support.ledger_calls import apply, claim, claim_jobs, create_all
from tests.support.lookouts import lookout
from tests.support.seeding import seed
from tests.support.store_writer import read_jobs


async def created(ledger: Ledger, count: int = 1, **fields: Any) -> Sequence[Job]:
    creation = Create(**{"user_id": "ada", "job_type": "render", **fields})
    return await create_all(ledger, CreateAll((creation,) * count))


def ended(job: Job) -> ChangeStatus:
    return ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED)


def ids(jobs: Sequence[Job]) -> list[str]:
    return [job.id for job in jobs]


async def looked(store: SqlStore, ledger: Ledger, tuning: Tuning = Tuning()) -> None:
    """Have somebody look at concurrency keys."""
    await Unblocker(store, ledger, ClaimWaiters(), tuning).unblock()


async def test_a_higher_priority_goes_first_and_the_oldest_of_equal_ones(ledger: Ledger) -> None:
    made = {n: (await created(ledger, priority=n))[0] for n in (5, 0, 9, 4)}
    again = (await created(ledger, priority=9))[0]
    claimed = [
        *await claim_jobs(ledger, claim(max_jobs=2)),
        *await claim_jobs(ledger, claim(max_jobs=9)),
    ]
    assert ids(claimed) == [made[9].id, again.id, made[5].id, made[4].id, made[0].id]


async def test_tenants_take_turns_and_one_that_was_away_saves_nothing_up(ledger: Ledger) -> None:
    await created(ledger, user_id="late")
    await claim_jobs(ledger, claim())
    for tenant in "abc":
        await created(ledger, 40, fairness_key=tenant)
    first = [job for _ in range(10) for job in await claim_jobs(ledger, claim(max_jobs=3))]
    assert set(Counter(job.tenant for job in first).values()) == {10}
    await created(ledger, 40, user_id="late")
    later = [job for _ in range(20) for job in await claim_jobs(ledger, claim())]
    then = Counter(job.tenant for job in later)
    assert max(then.values()) - min(then.values()) <= 2
    assert set(then) == {"a", "b", "c", "late"}


async def test_no_more_jobs_are_held_than_a_limit_permits_over_all_servers(
    ledger: Ledger, other: Ledger, store: SqlStore
) -> None:
    await store.queue_settings.set_limit("k", 3)
    made = await created(ledger, 20, concurrency_key="k")
    held: set[str] = set()
    ended_jobs: list[str] = []

    async def work(through: Ledger) -> None:
        while len(ended_jobs) < len(made):
            claimed = await claim_jobs(through, claim(max_jobs=2))
            held.update(ids(claimed))
            assert len(held) <= 3
            for job in claimed:
                await asyncio.sleep(0)
                held.discard(job.id)  # before its end: it may be claimed no more
                await apply(through, ended(job))
                ended_jobs.append(job.id)
            await looked(store, through)

    async with asyncio.timeout(60):
        await asyncio.gather(*(work(through) for through in (ledger, other) * 3))
    assert sorted(ended_jobs) == sorted(ids(made))


async def test_a_keys_own_limit_comes_before_that_of_its_name(
    ledger: Ledger, store: SqlStore
) -> None:
    await store.queue_settings.set_limit("stripe", 1)
    await store.queue_settings.set_limit("stripe:eu", 2)
    for key in ("stripe:eu", "stripe:us", "stripe"):
        await created(ledger, 3, concurrency_key=key)
    held = await claim_jobs(ledger, claim(max_jobs=9))
    assert Counter(job.concurrency_key for job in held) == {
        "stripe:eu": 2,
        "stripe:us": 1,
        "stripe": 1,
    }


async def test_nobody_waits_behind_the_jobs_of_a_full_key(
    ledger: Ledger, store: SqlStore, database: Database
) -> None:
    await seed(database, 1000, job_type="render", concurrency_key="k")
    await store.queue_settings.set_limit("k", 0)
    (free,) = await created(ledger, priority=0)
    assert ids(await claim_jobs(ledger, claim())) == [free.id]


async def test_a_free_slot_is_offered_to_each_type_that_waits_for_it(
    ledger: Ledger, store: SqlStore
) -> None:
    """A type without workers cannot keep it."""
    await store.queue_settings.set_limit("k", 1)
    for job_type in ("render", "export"):
        await created(ledger, 3, job_type=job_type, concurrency_key="k")
    (first,) = await claim_jobs(ledger, claim(max_jobs=3))
    assert await claim_jobs(ledger, claim("export", max_jobs=3)) == []
    await apply(ledger, ended(first))
    await looked(store, ledger)
    assert len(await claim_jobs(ledger, claim("export", max_jobs=3))) == 1
    assert await claim_jobs(ledger, claim(max_jobs=3)) == []


async def test_the_end_of_a_job_gives_its_slot_to_a_blocked_one_in_the_same_commit(
    ledger: Ledger, other: Ledger, store: SqlStore
) -> None:
    await store.queue_settings.set_limit("k", 1)
    made = await created(ledger, 3, concurrency_key="k")
    assert ids(await claim_jobs(ledger, claim(max_jobs=3))) == [made[0].id]
    await apply(ledger, ended(made[0]))
    assert await store.find_rechecks(after="", limit=9) == []
    assert ids(await claim_jobs(other, claim(max_jobs=3))) == [made[1].id]


@several_servers
async def test_a_blocked_job_that_is_locked_gets_the_slot_by_a_later_look(
    ledger: Ledger, other: Ledger, store: SqlStore, database: Database
) -> None:
    """The mark is in the commit that freed the slot, and any server finds it."""
    await store.queue_settings.set_limit("k", 1)
    made = await created(ledger, 2, concurrency_key="k")
    await claim_jobs(ledger, claim(max_jobs=2))
    async with database.reader.connect() as connection:
        lock = f"SELECT 1 FROM jobs WHERE id = '{made[1].id}' FOR UPDATE"
        await connection.execute(text(lock))
        await apply(ledger, ended(made[0]))
    assert await store.find_rechecks(after="", limit=9) == ["k"]
    await looked(store, other)
    assert await store.find_rechecks(after="", limit=9) == []
    assert ids(await claim_jobs(other, claim(max_jobs=2))) == [made[1].id]


@pytest.mark.parametrize("tuning", [Tuning(unblocked_jobs=20)])
async def test_all_blocked_jobs_go_on_in_bounded_steps_once_the_limit_is_removed(
    ledger: Ledger, store: SqlStore, database: Database, tuning: Tuning
) -> None:
    most = tuning.unblocked_jobs
    count = 2 * most + 1
    await store.queue_settings.set_limit("k", 0)
    await seed(database, count, job_type="render", concurrency_key="k", blocked=True)
    await store.queue_settings.set_limit("k", None)
    claimed: list[str] = []
    while len(claimed) < count:
        await looked(store, ledger, tuning)
        assert sum((await store.news(["render"])).ready.values()) <= most
        found = await claim_jobs(ledger, claim(max_jobs=100))
        assert found
        claimed += ids(found)
    await looked(store, ledger, tuning)
    assert await store.find_rechecks(after="", limit=9) == []


async def test_a_start_by_its_id_obeys_the_limit(ledger: Ledger, store: SqlStore) -> None:
    await store.queue_settings.set_limit("k", 1)
    made = await created(ledger, 2, concurrency_key="k")
    starts = [
        ChangeStatus(job_id=job.id, target=JobStatus.PROCESSING, worker_id="w") for job in made
    ]
    done, refused = await ledger.submit(starts, SERVICE)  # in one batch
    assert not isinstance(done, Exception)
    assert isinstance(refused, ConcurrencyLimitReached)
    assert (refused.concurrency_key, refused.max_running) == ("k", 1)
    await apply(ledger, ended(made[0]))
    assert (await apply(ledger, starts[1])).job.phase is Phase.HELD


async def test_a_unique_key_is_refused_or_returns_the_job_that_has_it(
    ledger: Ledger, other: Ledger
) -> None:
    def unique(**fields: Any) -> Create:
        fields = {"user_id": "ada", "job_type": "render", "unique_key": "u", **fields}
        return Create(**fields)

    first = (await apply(ledger, unique())).job
    with pytest.raises(UniqueKeyTaken) as refused:
        await apply(other, unique())
    assert refused.value.job_id == first.id
    assert (await apply(other, unique(return_existing=True))).job == first
    for free in ({"user_id": "bob"}, {"job_type": "export"}):
        assert (await apply(ledger, unique(**free))).changed
    with pytest.raises(UniqueKeyTaken) as refused:
        await create_all(ledger, CreateAll((unique(unique_key="v"), unique())))
    assert refused.value.index == 1
    # Freed by the end of the job in the same batch; also for more jobs than one statement inserts.
    await apply(ledger, ChangeStatus(job_id=first.id, target=JobStatus.PROCESSING, worker_id="w"))
    more = [unique(unique_key=f"w{number}") for number in range(20)]
    outcomes = await ledger.submit([ended(first), unique(), *more], SERVICE)
    assert not any(isinstance(each, Exception) for each in outcomes)


async def test_servers_that_race_for_a_unique_key_create_one_job(
    ledger: Ledger, other: Ledger
) -> None:
    for number in range(10):
        fields = {"user_id": "ada", "job_type": "render", "unique_key": f"u{number}"}
        reject, accept = Create(**fields), Create(**fields, return_existing=True)
        one, two = await asyncio.gather(
            apply(ledger, accept), apply(other, reject), return_exceptions=True
        )
        if isinstance(two, UniqueKeyTaken):
            assert two.job_id == one.job.id
            assert one.changed
        else:
            assert (one.job.id, one.changed, two.changed) == (two.job.id, False, True)


async def test_no_job_of_a_paused_type_or_key_starts_until_it_goes_on(
    ledger: Ledger, store: SqlStore
) -> None:
    settings = store.queue_settings
    (paused,) = await created(ledger)
    (keyed,) = await created(ledger, concurrency_key="k:1", job_type="export")
    await claim_jobs(ledger, claim("other"))  # the server knows of no pause
    await settings.pause_type("render", actor="ann", reason="deploy")
    await settings.pause_key("k", actor="ann", reason="deploy")
    start = ChangeStatus(job_id=keyed.id, target=JobStatus.PROCESSING, worker_id="w")
    assert await claim_jobs(ledger, claim()) == []
    assert await claim_jobs(ledger, claim("export")) == []
    with pytest.raises(Paused) as refused:
        await apply(ledger, start)
    assert refused.value.concurrency_key == "k:1"
    await settings.resume_type("render")
    await settings.resume_key("k")
    await lookout(store, ledger, ClaimWaiters()).look()
    await looked(store, ledger)
    assert ids(await claim_jobs(ledger, claim())) == [paused.id]
    assert ids(await claim_jobs(ledger, claim("export"))) == [keyed.id]


async def test_a_pause_that_the_server_learns_of_after_the_plan_prevents_the_start(
    ledger: Ledger, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lookout, or an operator's call, reads the pauses while a claim is under way."""
    await created(ledger, 1)
    await claim_jobs(ledger, claim("other"))
    find = store.find_claimable

    async def paused_then(*args: Any, **kwargs: Any) -> Any:
        found = await find(*args, **kwargs)
        await store.queue_settings.pause_type("render", actor="ann", reason="")
        await ledger.known_limits.refresh()
        return found

    monkeypatch.setattr(store, "find_claimable", paused_then)
    assert await claim_jobs(ledger, claim()) == []


@both_databases
async def test_a_pause_that_commits_before_a_start_prevents_it(
    ledger: Ledger, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim was planned, and a start by its id was decided, without the pause."""
    by_id, claimed = await created(ledger, 2)
    await claim_jobs(ledger, claim("other"))  # the server knows of no pause
    transactions = 0
    begin = SqlStore.transaction

    @asynccontextmanager
    async def paused_first(self: SqlStore) -> AsyncIterator[Any]:
        nonlocal transactions
        transactions += 1
        if transactions == 1:
            await store.queue_settings.pause_type("render", actor="ann", reason="")
        async with begin(self) as transaction:
            yield transaction

    start = ChangeStatus(job_id=by_id.id, target=JobStatus.PROCESSING, worker_id="w")
    with monkeypatch.context() as patch:
        patch.setattr(SqlStore, "transaction", paused_first)
        with pytest.raises(Paused):
            await apply(ledger, start)
        await store.queue_settings.resume_type("render")
        await ledger.known_limits.refresh()
        transactions = 0
        assert await claim_jobs(ledger, claim(max_jobs=2)) == []
    assert transactions == 1
    found = await read_jobs(store, [by_id.id, claimed.id])
    assert {job.attempt for job in found.values()} == {0}


@both_databases
async def test_a_claim_reads_no_more_queues_than_it_requests_jobs(
    ledger: Ledger, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many types and tenants have some: the event loop handles each queue that is read."""
    types = [f"t{number}" for number in range(10)]
    for job_type in types:
        creations = tuple(
            Create(user_id=f"u{number}", job_type=job_type, priority=number % 2)
            for number in range(30)
        )
        await create_all(ledger, CreateAll(creations))
    read: list[int] = []

    def counted(queues: Sequence[Queue], *args: Any, **options: Any) -> Iterator[Queue]:
        read.append(len(queues))
        return next_queues(queues, *args, **options)

    monkeypatch.setattr(sql_store, "next_queues", counted)
    claimed = await claim_jobs(ledger, claim(*types, max_jobs=20))
    assert read == [20]
    # Two of each type, all of the higher priority.
    assert Counter(job.job_type for job in claimed) == dict.fromkeys(types, 2)
    assert {job.priority for job in claimed} == {1}


async def test_blocked_jobs_delay_a_claim_of_another_type_by_few_commits(
    ledger: Ledger, store: SqlStore
) -> None:
    """A burst on a full key is taken out of its queue in steps, with other claims in between."""
    await store.queue_settings.set_limit("k", 1)
    await created(ledger, 1000, concurrency_key="k")
    (other,) = await created(ledger, job_type="other")
    gated = GatedStore(store)
    commits = 0
    waiting: asyncio.Task[tuple[Sequence[Job], int]] | None = None

    async with Ledger(gated, lambda _: None, max_waiting=100) as claiming:
        await claim_jobs(claiming, claim())

        async def waited() -> tuple[Sequence[Job], int]:
            got = await claim_jobs(claiming, claim("other"))
            return got, commits

        async def counted() -> None:
            nonlocal commits, waiting
            commits += 1
            if waiting is None:
                waiting = asyncio.create_task(waited())

        gated.before_commit = counted
        assert await claim_jobs(claiming, claim()) == []
    assert waiting is not None
    got, behind = await waiting
    assert ids(got) == [other.id]
    # The step that is under way when it comes, and its own, which starts its job.
    assert behind <= 2
    assert commits >= 999 / Tuning().passed_at_once


async def test_claims_that_pass_over_blocked_jobs_of_different_types_take_turns(
    ledger: Ledger, store: SqlStore
) -> None:
    """Also if the jobs of one type have a higher priority."""
    await store.queue_settings.set_limit("k", 0)
    await created(ledger, 1000, concurrency_key="k", priority=9)
    await created(ledger, 2, job_type="other", concurrency_key="k", priority=0)
    (free,) = await created(ledger, job_type="other", priority=0)
    gated = GatedStore(store)
    commits = behind = 0

    async def counted() -> None:
        nonlocal commits
        commits += 1

    async with Ledger(gated, lambda _: None, max_waiting=100) as claiming:
        gated.before_commit = counted

        async def waited() -> Sequence[Job]:
            nonlocal behind
            got = await claim_jobs(claiming, claim("other"))
            behind = commits
            return got

        nothing, got = await asyncio.gather(claim_jobs(claiming, claim()), waited())
    assert (nothing, ids(got)) == ([], [free.id])
    # One for both, and then two of its own among those of the other claim.
    assert behind <= 5
    assert commits > behind
