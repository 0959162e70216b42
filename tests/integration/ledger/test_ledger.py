"""Group commit: no change is lost, reordered or answered too early."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from jobledger_server.admission.caller import Caller
from jobledger_server.domain.commands import (
    Cancel,
    ChangeStatus,
    Command,
    Create,
    CreateAll,
    Delete,
    Expire,
    LinkAsset,
    Release,
    Report,
)
from jobledger_server.domain.errors import (
    DomainError,
    IllegalTransition,
    JobNotFound,
    JobTerminal,
    LeaseLost,
    LimitExceeded,
    RequestIdReused,
)
from jobledger_server.domain.job import AssetLink, Job, JobId, JobStatus, Payload
from jobledger_server.domain.state_machine import Decision
from jobledger_server.ledger.ledger import QUEUE_WEIGHT, Ledger
from jobledger_server.sql.database import Database
from jobledger_server.sql.postgresql.postgresql_driver import COPY_FROM_ROWS
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import Change, JobQuery, StoreConflict
from jobledger_server.telemetry.logs import JsonFormatter
from jobledger_server.tuning import Tuning
from tests.support.databases import both_databases, sqlite_only
from tests.support.gated_store import Gate, GatedStore
from tests.support.ledger_calls import apply, created
from tests.support.store_writer import read_jobs

LINK = AssetLink("image/png", "https://e.example/a.png", "", 1, "a.png")


@pytest.fixture
def gated(store: SqlStore) -> GatedStore:
    return GatedStore(store)


@pytest.fixture
async def gated_ledger(gated: GatedStore, published: list[Change]) -> AsyncIterator[Ledger]:
    async with Ledger(gated, published.extend, max_waiting=10_000) as ledger:
        yield ledger


async def running(ledger: Ledger, **fields: object) -> Job:
    job = await created(ledger, **fields)
    start = ChangeStatus(job_id=job.id, target=JobStatus.PROCESSING, worker_id="w1")
    return (await apply(ledger, start)).job


async def together(ledger: Ledger, *commands: Command) -> list[Decision | DomainError]:
    """Apply commands that arrive together: in one batch, in this order."""
    return await asyncio.gather(*(apply(ledger, each) for each in commands), return_exceptions=True)


async def test_200_concurrent_commands_on_one_job_lose_no_update(
    ledger: Ledger, store: SqlStore
) -> None:
    job = await running(ledger)
    links = [AssetLink("t", "", f"part-{i}", i, f"part-{i}") for i in range(200)]
    outcomes = await together(ledger, *(LinkAsset(job_id=job.id, link=link) for link in links))
    assert sorted(o.job.version for o in outcomes) == list(range(3, 203))
    assert [a.link for a in await store.list_assets(job.id, after=None, limit=500)] == links
    after = (await read_jobs(store, [job.id]))[job.id]
    assert after.version == 202
    assert (await store.feed_head()).seq == 202


@sqlite_only
async def test_a_heartbeat_renews_the_lease_and_changes_nothing(
    ledger: Ledger, store: SqlStore, published: list[Change]
) -> None:
    jobs = {job.id: job for job in [await running(ledger) for _ in range(3)]}
    first, second, third = jobs
    head = await store.feed_head()
    published.clear()
    heartbeats = [Report(job_id=job_id, attempt=1) for job_id in jobs]
    again = Report(job_id=first, progress=0, progress_message="")
    renewed = [outcome.job for outcome in await together(ledger, *heartbeats, again)]
    for job in renewed:
        before = jobs[job.id]
        assert (job.lease_expire_time or 0) > (before.lease_expire_time or 0)
        assert replace(job, lease_expire_time=before.lease_expire_time) == before
    assert await read_jobs(store, jobs) == {job.id: job for job in renewed}
    assert (published, await store.feed_head()) == ([], head)
    news = Report(job_id=second, attempt=1, progress=5)
    outcomes = await together(ledger, heartbeats[0], heartbeats[1], news, heartbeats[1])
    assert [outcome.job.version for outcome in outcomes] == [2, 2, 3, 3]
    assert [(change.job.id, change.seq) for change in published] == [(second, head.seq + 1)]
    after = await read_jobs(store, jobs)
    assert after[second] == outcomes[3].job
    feed = (await store.changes_after(0, limit=10)).changes
    assert [(change.job.id, change.job.version) for change in feed] == [
        (first, 2),
        (second, 2),
        (third, 2),
        (second, 3),
    ]


@both_databases
@pytest.mark.parametrize("released", [False, True])
async def test_a_report_without_news_makes_a_retry_of_an_earlier_one_late(
    ledger: Ledger, other: Ledger, store: SqlStore, *, released: bool
) -> None:
    job = await running(ledger)
    report = Report(job_id=job.id, progress_message="loading", number=1)
    await apply(ledger, report)
    if released:
        await apply(ledger, Release(job_id=job.id, attempt=1))
    await apply(ledger, replace(report, number=3))
    # The second report arrives last, at a server that knows the job from the database only.
    late = await apply(other, replace(report, progress_message="done", number=2))
    assert not late.changed
    assert (await read_jobs(store, [job.id]))[job.id].progress_message == "loading"


@both_databases
async def test_a_report_without_news_beside_others_leaves_its_job_in_the_feed(
    ledger: Ledger, database: Database
) -> None:
    silent, busy = [await running(ledger) for _ in range(2)]
    said = Report(job_id=silent.id, progress=5, number=1)
    await apply(ledger, said)
    await together(ledger, replace(said, number=2), Report(job_id=busy.id, progress=5))
    # A server that knows the job from the database only.
    async with Ledger(SqlStore(database), lambda _: None, max_waiting=100) as other:
        for job in (silent, busy):
            await apply(other, ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED))
    feed = (await SqlStore(database).changes_after(0, limit=10)).changes
    assert [(change.job.id, change.job.version, change.seq) for change in feed] == [
        (silent.id, 2, 2),
        (busy.id, 2, 4),
        (silent.id, 4, 7),
        (busy.id, 4, 8),
    ]


LARGE = Payload(bytes(2000))
LARGE_ASSETS = tuple(AssetLink("image/png", "u" * 100, "p" * 100, 1, f"{i}.png") for i in range(10))


@sqlite_only
@pytest.mark.parametrize(
    "content",
    [{"result": LARGE}, {"error_details": LARGE}, {"assets": LARGE_ASSETS}],
    ids=lambda content: next(iter(content)),
)
async def test_queued_commands_of_one_caller_are_bounded_by_bytes(
    store: SqlStore, content: dict[str, Any]
) -> None:
    caller = Caller("1.1.1.1:1", "w1")
    command = ChangeStatus(job_id=JobId("j"), target=JobStatus.COMPLETED, **content)
    # Ten commands, or 2,684 bytes.
    async with Ledger(store, lambda _: None, max_waiting=1_000_000, share=1e-5) as ledger:
        first, second = ledger.submit([command], caller), ledger.submit([command], caller)
        (refused,) = await second
        assert isinstance(refused, LimitExceeded)
        assert refused.limit == "waiting_commands_bytes"
    assert isinstance((await first)[0], JobNotFound)


@sqlite_only
async def test_commands_that_arrive_together_are_one_commit(
    gated_ledger: Ledger, gated: GatedStore
) -> None:
    commits = 0

    async def count() -> None:
        nonlocal commits
        commits += 1

    gated.before_commit = count
    await together(gated_ledger, *(Create(user_id="ada", job_type="t") for _ in range(100)))
    assert commits == 1


@sqlite_only
async def test_a_refused_command_does_not_affect_the_rest_of_its_batch(
    ledger: Ledger, store: SqlStore
) -> None:
    job, other = await running(ledger), await running(ledger)
    outcomes = await together(
        ledger,
        Report(job_id=job.id, progress=10),
        ChangeStatus(job_id=JobId("nowhere"), target=JobStatus.COMPLETED),
        Report(job_id=job.id, progress=20, attempt=7),
        ChangeStatus(job_id=other.id, target=JobStatus.QUEUED),
        Report(job_id=other.id, progress=30),
        Create(user_id="ada", job_type="render"),
    )
    assert [type(outcome) for outcome in outcomes] == [
        Decision,
        JobNotFound,
        LeaseLost,
        IllegalTransition,
        Decision,
        Decision,
    ]
    after = await read_jobs(store, [job.id, other.id])
    assert [after[j.id].progress for j in (job, other)] == [10, 30]
    assert (await store.feed_head()).seq == 7


@sqlite_only
async def test_commands_on_one_job_in_one_batch_see_each_other(ledger: Ledger) -> None:
    job = await created(ledger)
    started, reported, lower, ended, again, late, too_late = await together(
        ledger,
        ChangeStatus(job_id=job.id, target=JobStatus.PROCESSING),
        Report(job_id=job.id, progress=50),
        Report(job_id=job.id, progress=40),
        ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED),
        ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED),
        Report(job_id=job.id, progress=60),
        LinkAsset(job_id=job.id, link=LINK),
    )
    outcomes = (started, reported, lower, ended, again, late)
    assert [d.job.version for d in outcomes] == [2, 3, 3, 4, 4, 4]
    assert (lower.applied, lower.renewed, lower.job.progress) == (True, True, 50)
    assert (again.changed, late.applied) == (False, False)
    assert isinstance(too_late, JobTerminal)


@sqlite_only
async def test_one_request_id_in_one_batch_makes_one_job(ledger: Ledger, store: SqlStore) -> None:
    same = Create(user_id="ada", job_type="render", request_id="r", parameters=Payload(b"p"))
    other = Create(user_id="ada", job_type="render", request_id="r")
    first, second, reused = await together(ledger, same, same, other)
    assert first.job == second.job
    assert isinstance(reused, RequestIdReused)
    assert len((await store.list_jobs(JobQuery(user_id="ada"), before=None, limit=10)).jobs) == 1


async def repeated(ledger: Ledger, count: int = 1) -> list[Create]:
    """Make jobs that have ended, and return commands that repeat them."""
    ended = [await running(ledger) for _ in range(count)]
    done = [ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED) for job in ended]
    await together(ledger, *done)
    return [Create(user_id="ada", job_type="render", origin_job_id=job.id) for job in ended]


async def test_a_job_is_repeated_once_however_often_and_in_whichever_batch(
    ledger: Ledger, store: SqlStore
) -> None:
    first, second = await repeated(ledger, 2)
    named = replace(first, request_id="r")
    one, same, other = await together(ledger, first, named, second)
    assert (one.changed, same.changed, other.changed) == (True, False, True)
    assert one.job == same.job
    # Other jobs, of which some are repeated already, and some are not.
    (third,) = await repeated(ledger)
    outcomes = await together(ledger, third, named, second, first, third)
    assert [each.changed for each in outcomes] == [True, False, False, False, False]
    assert [each.job for each in outcomes[1:4]] == [one.job, other.job, one.job]
    # The request id of the call that made no job is free, in the same batch and in a later one.
    again, made = await together(ledger, named, Create(user_id="ada", job_type="t", request_id="r"))
    assert (again.job, made.changed, made.job.job_type) == (one.job, True, "t")
    query = JobQuery(user_id="ada", origin_job_id=first.origin_job_id)
    assert (await store.list_jobs(query, before=None, limit=10)).jobs == [one.job]


async def test_a_refused_creation_undoes_the_repetitions_that_came_with_it(ledger: Ledger) -> None:
    (command,) = await repeated(ledger)
    taken = await created(ledger, request_id="r")
    reused = Create(user_id="ada", job_type="other", request_id=taken.request_id)
    refused, made = await together(ledger, CreateAll((command, reused)), command)
    assert isinstance(refused, RequestIdReused)
    assert made.changed


async def test_a_deleted_repetition_frees_the_job_also_in_the_same_batch(ledger: Ledger) -> None:
    (command,) = await repeated(ledger)
    (first,) = await together(ledger, command)
    await apply(ledger, Cancel(job_id=first.job.id, user_id="ada"))
    deletion = Delete(job_id=first.job.id, user_id="ada")
    before, deleted, after = await together(ledger, command, deletion, command)
    assert (before.job.id, deleted.deleted) == (first.job.id, True)
    assert after.changed
    assert after.job.id != first.job.id


async def test_two_ledgers_on_one_database_repeat_each_job_once(
    ledger: Ledger, store: SqlStore
) -> None:
    """The other server is faster: the loser of the race finds the winner's job."""
    commands = await repeated(ledger, 20)
    before = (await store.feed_head()).seq
    async with (
        Ledger(store, lambda _: None, max_waiting=100) as one,
        Ledger(store, lambda _: None, max_waiting=100) as other,
    ):
        outcomes = await asyncio.gather(together(one, *commands), together(other, *commands))
    ours, theirs = ([decision.job for decision in half] for half in outcomes)
    assert ours == theirs
    assert (await store.feed_head()).seq == before + 20


@sqlite_only
async def test_one_asset_request_id_in_one_batch_links_one_asset(
    ledger: Ledger, store: SqlStore
) -> None:
    job = await running(ledger)
    command = LinkAsset(job_id=job.id, link=LINK, request_id="r")
    first, second = await together(ledger, command, command)
    assert first.assets == (first.asset,) == (second.asset,)
    assert second.assets == ()
    assert await store.list_assets(job.id, after=None, limit=10) == [first.asset]


async def test_a_job_can_be_finished_deleted_and_recreated_in_one_batch(ledger: Ledger) -> None:
    job = await running(ledger, request_id="r")
    ended, deleted, gone, made = await together(
        ledger,
        ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED, assets=(LINK,)),
        Delete(job_id=job.id, user_id="ada"),
        Report(job_id=job.id, progress=1),
        Create(user_id="ada", job_type="render", request_id="r"),
    )
    assert ended.changed
    assert deleted.deleted
    assert isinstance(gone, JobNotFound)
    assert made.job.id != job.id


@sqlite_only
async def test_a_caller_is_never_answered_before_its_commit(
    gated_ledger: Ledger, gated: GatedStore, published: list[Change]
) -> None:
    gate = gated.before_commit = Gate()
    caller = asyncio.create_task(created(gated_ledger))
    await gate.reached.wait()
    # Everything is written, only not committed: no caller was answered.
    assert not caller.done()
    assert published == []
    assert (await gated.list_jobs(JobQuery(user_id="ada"), before=None, limit=10)).jobs == []
    gate.open()
    job = await caller
    assert await read_jobs(gated, [job.id]) == {job.id: job}


@sqlite_only
async def test_watchers_are_notified_before_the_caller_is_answered(
    ledger: Ledger, published: list[Change]
) -> None:
    job = await created(ledger)
    assert [change.job for change in published] == [job]


async def test_a_crash_between_load_and_commit_writes_nothing_and_leaves_no_hole(
    gated_ledger: Ledger, gated: GatedStore, published: list[Change]
) -> None:
    job = await running(gated_ledger)
    published.clear()

    async def crash() -> None:
        raise RuntimeError("crash")

    gated.before_commit = crash
    commands = (
        Report(job_id=job.id, progress=10),
        LinkAsset(job_id=job.id, link=LINK),
        Create(user_id="ada", job_type="render"),
    )
    for outcome in await together(gated_ledger, *commands):
        assert isinstance(outcome, RuntimeError)
    assert published == []
    assert await read_jobs(gated, [job.id]) == {job.id: job}
    assert await gated.list_assets(job.id, after=None, limit=10) == []
    assert (await gated.feed_head()).seq == 2

    async def calm() -> None:
        pass

    gated.before_commit = calm
    await together(gated_ledger, *commands)
    assert [change.seq for change in published] == [3, 4, 5]


@sqlite_only
async def test_a_command_that_changes_nothing_takes_no_sequence_number(
    ledger: Ledger, store: SqlStore
) -> None:
    job = await running(ledger)
    job = (await apply(ledger, Report(job_id=job.id, progress=5))).job
    again = ChangeStatus(job_id=job.id, target=JobStatus.PROCESSING, worker_id="w1")
    await together(ledger, Report(job_id=job.id, progress=4), Expire(job_id=job.id), again)
    with pytest.raises(IllegalTransition):
        await apply(ledger, Delete(job_id=job.id, user_id="ada"))
    assert (await store.feed_head()).seq == 3


async def test_two_ledgers_on_one_database_take_one_request_id_once(store: SqlStore) -> None:
    """The other server is faster: the loser of the race finds the winner's job."""
    async with (
        Ledger(store, lambda _: None, max_waiting=100) as one,
        Ledger(store, lambda _: None, max_waiting=100) as other,
    ):
        commands = [Create(user_id="ada", job_type="render", request_id=f"r{i}") for i in range(20)]
        outcomes = await asyncio.gather(together(one, *commands), together(other, *commands))
    ours, theirs = ([decision.job for decision in half] for half in outcomes)
    assert ours == theirs
    assert (await store.feed_head()).seq == 20


@pytest.mark.parametrize(
    "bad",
    [
        Create(user_id="", job_type="render"),
        Create(user_id="ada", job_type="x" * 51),
        Create(user_id="ada", job_type="render", max_attempts=2**63),
        Create(user_id="ada", job_type="half of a character \ud800"),
    ],
    ids=["breaks a rule", "is too long", "is too large", "is no text"],
)
@pytest.mark.parametrize("half", [4, COPY_FROM_ROWS])
@both_databases
async def test_a_row_that_the_database_refuses_fails_only_its_own_command(
    ledger: Ledger, store: SqlStore, half: int, bad: Create
) -> None:
    """If a bad value passed the checks, the rest of its batch would still be applied.

    Many new jobs are copied to PostgreSQL, and the driver raises other errors for a copy.
    """
    good = [Create(user_id="ada", job_type=f"t{i}") for i in range(2 * half)]
    outcomes = await together(ledger, *good[:half], bad, *good[half:])
    refused = [n for n, outcome in enumerate(outcomes) if not isinstance(outcome, Decision)]
    assert refused == [half]
    assert (await store.feed_head()).seq == len(good)


@sqlite_only
async def test_each_transition_and_each_attempt_that_ends_is_one_line_of_the_log(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="jobledger")
    job = await created(ledger)
    await apply(
        ledger, ChangeStatus(job_id=job.id, target=JobStatus.PROCESSING, worker_id="w1", progress=3)
    )
    await apply(ledger, Report(job_id=job.id, progress=7))
    await apply(ledger, Release(job_id=job.id, attempt=1))
    await apply(ledger, Release(job_id=job.id, attempt=1))
    await apply(ledger, Cancel(job_id=job.id, user_id="ada"))
    await apply(ledger, Report(job_id=job.id, attempt=1, progress=9))
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    started, ended, cancelled, late = lines
    assert {
        k: started[k] for k in ("event", "job", "from", "to", "version", "attempt", "actor")
    } == {
        "event": "transition",
        "job": job.id,
        "from": "QUEUED",
        "to": "PROCESSING",
        "version": 2,
        "attempt": 1,
        "actor": "w1",
    }
    assert {k: ended[k] for k in ("event", "job", "attempt", "worker", "outcome", "progress")} == {
        "event": "attempt_ended",
        "job": job.id,
        "attempt": 1,
        "worker": "w1",
        "outcome": "RELEASED",
        "progress": 7,
    }
    assert (cancelled["event"], cancelled["to"]) == ("transition", "FAILED")
    assert (late["event"], late["count"]) == ("late_progress_reports", 1)


class Halved(GatedStore):
    """Refuses more than one creation at once, and fails in an unknown way for one of them."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with super().transaction() as transaction:
            yield _Halving(transaction)


class _Halving:
    def __init__(self, transaction: Any) -> None:
        self._transaction = transaction

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)

    async def append(self, decisions: Sequence[Decision], **options: Any) -> Any:
        if len(decisions) > 1:
            raise StoreConflict("one at a time")
        if decisions[0].job.user_id == "bad":
            raise RuntimeError("a bug")
        return await self._transaction.append(decisions, **options)


@sqlite_only
async def test_halving_a_refused_batch_keeps_what_was_committed(store: SqlStore) -> None:
    async with Ledger(Halved(store), lambda _: None, max_waiting=100) as ledger:
        users = ["ada", "bob", "bad", "eve"]
        outcomes = await asyncio.gather(
            *(apply(ledger, Create(user_id=user, job_type="t")) for user in users),
            return_exceptions=True,
        )
    assert [type(outcome) for outcome in outcomes] == [Decision, Decision, RuntimeError, Decision]
    stored = [outcome.job.id for outcome in outcomes if isinstance(outcome, Decision)]
    assert (await read_jobs(store, stored)).keys() == set(stored)


@sqlite_only
@pytest.mark.parametrize(
    ("differ", "least"),
    [("fairness_key", 3), ("job_type", 3), ("concurrency_key", 2), ("request_id", 1)],
)
async def test_creations_in_many_queues_make_short_batches(
    ledger: Ledger, tuning: Tuning, differ: str, least: int
) -> None:
    """Each queue is on pages of its own: as many take the database several times as long."""
    before = sum(ledger.batchers[0].sizes.buckets)
    eve = Caller("eve")
    size = tuning.command_batch - QUEUE_WEIGHT
    plain = Create(user_id="eve", job_type="render")
    creations = [replace(plain, **{differ: f"k{number}"}) for number in range(size)]
    await asyncio.gather(*(ledger.submit([each], eve) for each in creations))
    assert sum(ledger.batchers[0].sizes.buckets) - before == least
