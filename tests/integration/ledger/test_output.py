"""Output: appended in the order of a job's other updates, read back exactly, and bounded."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from jobledger_server.admission.caller import SERVICE
from jobledger_server.domain.commands import AppendOutput, ChangeStatus, Delete, Release, Report
from jobledger_server.domain.errors import JobTerminal, LeaseLost, LimitExceeded
from jobledger_server.domain.job import Job, JobError, JobId, JobStatus, Micros
from jobledger_server.domain.output import OutputPiece, OutputTail
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.ledger.output_rates import OutputRates
from jobledger_server.sql.database import Database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import Change, Store, StoreUnavailable
from tests.support.databases import NoOutages
from tests.support.ledger_calls import apply, apply_all, claim, claim_jobs, created


async def running(ledger: Ledger, **fields: Any) -> Job:
    await created(ledger, **fields)
    (job,) = await claim_jobs(ledger, claim())
    return job


def appends(job: Job, *texts: str, stream: str = "", first: int = 1) -> list[AppendOutput]:
    return [
        AppendOutput(
            job_id=job.id, attempt=job.attempt, data=text.encode(), stream=stream, number=number
        )
        for number, text in enumerate(texts, start=first)
    ]


async def stored(store: Store, job_id: JobId, stream: str = "") -> list[OutputPiece]:
    return await store.outputs.read([(job_id, stream, 0)], limit=1000)


async def text_of(store: Store, job_id: JobId, stream: str = "") -> str:
    return "".join(each.data.decode() for each in await stored(store, job_id, stream))


async def test_output_is_appended_in_order_and_read_back(ledger: Ledger, store: Store) -> None:
    job = await running(ledger)
    offsets = [each.next_offset for each in await apply_all(ledger, appends(job, "one ", "two "))]
    offsets += [(await apply(ledger, each)).next_offset for each in appends(job, "three", first=3)]
    assert offsets == [4, 8, 13]
    await apply_all(ledger, [*appends(job, "log", stream="log"), *appends(job, "again")])
    assert await text_of(store, job.id) == "one two three"  # the last one was a repetition
    assert await text_of(store, job.id, "log") == "log"
    tail = await store.outputs.tail(job.id, "")
    assert tail == OutputTail(end=13, attempt=1, number=3, first=0, pieces=2)
    # Pieces are what one commit wrote.
    assert [await store.outputs.piece_at(job.id, "", at) for at in (0, 7, 8, 99)] == [0, 0, 8, 8]
    assert await store.outputs.piece_at(job.id, "none", 9) is None
    later = await store.outputs.read([(job.id, "", 8), (job.id, "log", 1)], limit=9)
    assert [each.data for each in later] == [b"three"]
    read = (await store.read_jobs([job.id], full=False))[job.id].job
    assert (read.version, read.update_time) == (job.version, job.update_time)
    assert dict(read.output_streams) == dict.fromkeys(("", "log"), "text/plain; charset=utf-8")


async def test_output_keeps_its_place_among_the_updates_of_its_job(
    store: Store, published: list[Change]
) -> None:
    written: list[str] = []

    def take(pieces: Sequence[OutputPiece]) -> None:
        written.extend(f"{piece.data.decode()} before {len(published)}" for piece in pieces)

    async with Ledger(store, published.extend, written=take, max_waiting=100) as ledger:
        ledger.outages = NoOutages()
        job = await running(ledger)
        changes = len(published)
        first, second, late = appends(job, "first ", "second", "late")
        outcomes = await ledger.submit(
            [
                first,
                Report(job_id=job.id, attempt=1, progress=50),
                second,
                ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED, attempt=1),
                late,
                first,
            ],
            SERVICE,
        )
    assert isinstance(outcomes[4], JobTerminal)
    assert outcomes[5][0].next_offset == 12  # a repetition, after the end
    assert await text_of(store, job.id) == "first second"
    # Before the end is published, which closes the stream.
    assert written == [f"first second before {changes}"]
    assert published[-1].job.status is JobStatus.COMPLETED


async def test_each_attempt_appends_to_what_the_ones_before_it_wrote(
    ledger: Ledger, store: Store
) -> None:
    first = await running(ledger, max_attempts=3)
    await apply(ledger, *appends(first, "one"))
    failure = ChangeStatus(
        job_id=first.id,
        target=JobStatus.FAILED,
        attempt=1,
        retryable=True,
        retry_delay=Micros(0),
        error=JobError("BUSY", "later"),
    )
    await apply(ledger, failure)
    (second,) = await claim_jobs(ledger, claim())
    await apply(ledger, *appends(second, "two"))
    (outcome,) = await ledger.submit(appends(first, "three", first=2), SERVICE)
    assert isinstance(outcome, LeaseLost)
    pieces = await stored(store, first.id)
    assert [(each.attempt, each.number, each.data) for each in pieces] == [
        (1, 1, b"one"),
        (2, 1, b"two"),
    ]


@pytest.fixture
async def small(store: Store) -> AsyncIterator[Ledger]:
    """A ledger that stores 1000 bytes of output of a job."""
    async with Ledger(
        store, lambda _: None, rates=OutputRates(job_bytes=1000), max_waiting=100
    ) as ledger:
        ledger.outages = NoOutages()
        yield ledger


async def test_the_oldest_output_goes_of_the_longest_stream(small: Ledger, store: Store) -> None:
    job = await running(small)
    await apply(small, *appends(job, "r" * 100, stream="result"))
    for number in range(1, 41):
        await apply(small, *appends(job, f"{number:>50}", stream="log", first=number))
        pieces = await stored(store, job.id, "log")
        assert pieces[-1].end == 50 * number
        assert sum(len(each.data) for each in pieces) <= 1000 - 100 + 1000 // 8 + 50
        assert all(one.end == next_.start for one, next_ in pairwise(pieces))
    assert len(await text_of(store, job.id, "result")) == 100
    assert pieces[0].start > 0
    # The newest piece says where the stream ends: it stays, however large it is.
    await apply(small, *appends(job, "x" * 5000, stream="log", first=41))
    await apply(small, *appends(job, "y" * 5000, stream="log", first=42))
    assert [len(each.data) for each in await stored(store, job.id, "log")][-1] == 5000
    assert (await store.outputs.tail(job.id, "log")).end == 12_000


async def test_many_small_pieces_are_dropped_long_before_their_bytes_are_too_many(
    store: Store,
) -> None:
    # 8 pieces, and one more before any is dropped, each time after the next was appended.
    rates = OutputRates(job_bytes=8 * 128)
    async with Ledger(store, lambda _: None, rates=rates, max_waiting=100) as ledger:
        ledger.outages = NoOutages()
        job = await running(ledger)
        await apply(ledger, *appends(job, "r", stream="result"))
        for number in range(1, 31):
            await apply(ledger, *appends(job, f"{number} ", stream="log", first=number))
            pieces = await stored(store, job.id, "log")
            assert len(pieces) <= 9
            assert pieces[-1].data.decode() == f"{number} "
        assert len(pieces) >= 7
        assert await text_of(store, job.id, "result") == "r"
        tail = await store.outputs.tail(job.id, "log")
        assert (tail.pieces, tail.first) == (len(pieces), pieces[0].start)


async def test_fewer_pieces_may_be_stored_than_a_server_counted(
    small: Ledger, store: Store
) -> None:
    # Of small pieces 7 would be stored, and of these one: the others are dropped for their bytes.
    job = await running(small)
    await apply(small, *appends(job, "0 ", stream="log", first=1))
    for number in range(1, 11):
        await apply(small, *appends(job, "x" * 1200, first=number))
    for number in range(1, 11):
        await apply(small, *appends(job, f"{number} ", stream="log", first=number + 1))
    assert (await store.outputs.tail(job.id, "")).end == 12_000
    assert (await text_of(store, job.id, "log")).endswith("8 9 10 ")


async def test_a_job_whose_creator_said_so_keeps_the_oldest(small: Ledger, store: Store) -> None:
    job = await running(small, refuse_output=True)
    await apply(small, *appends(job, "x" * 900))
    (outcome,) = await small.submit(appends(job, "y" * 101, first=2), SERVICE)
    assert isinstance(outcome, LimitExceeded)
    assert (outcome.limit, outcome.scope) == ("output_bytes_per_job", "request")
    await apply(small, *appends(job, "z" * 100, first=2))
    assert await text_of(store, job.id) == "x" * 900 + "z" * 100


async def test_the_output_of_a_deleted_job_is_deleted_also_with_what_its_batch_appends(
    ledger: Ledger, store: Store
) -> None:
    job = await running(ledger)
    await apply(ledger, *appends(job, "one"))
    end = ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED, attempt=1)
    delete = Delete(job_id=job.id, user_id="ada")
    assert len(await apply_all(ledger, [*appends(job, "two", first=2), end, delete])) == 3
    assert await stored(store, job.id) == []
    # Its name is free.
    (outcome,) = await ledger.submit(appends(job, "three", first=3), SERVICE)
    assert isinstance(outcome, Exception)


async def test_servers_that_append_to_one_job_leave_no_gap(
    database: Database, ledger: Ledger, store: Store
) -> None:
    async def run(second: Ledger, third: Ledger) -> None:
        servers = ledger, second, third
        for number in range(1, 10):
            for at, server in enumerate(servers):
                server.outages = NoOutages()
                await apply(server, *appends(job, f"{at}{number} ", first=3 * number + at - 2))
        at_once = (
            apply(server, *appends(job, f"<{at}>", stream=f"s{at}"))
            for at, server in enumerate(servers)
        )
        await asyncio.gather(*at_once)

    job = await running(ledger)
    # Each server has a store of its own, which keeps what it appended last.
    stores = [SqlStore(database) if isinstance(store, SqlStore) else store for _ in range(2)]
    async with (
        Ledger(stores[0], lambda _: None, max_waiting=100) as second,
        Ledger(stores[1], lambda _: None, max_waiting=100) as third,
    ):
        await run(second, third)
    expected = "".join(f"{at}{number} " for number in range(1, 10) for at in range(3))
    assert await text_of(store, job.id) == expected
    assert [await text_of(store, job.id, f"s{at}") for at in range(3)] == ["<0>", "<1>", "<2>"]


async def test_a_server_appends_to_the_end_although_what_follows_what_it_knew_was_dropped(
    database: Database, small: Ledger, store: Store
) -> None:
    job = await running(small)
    await apply(small, *appends(job, "x" * 10, first=0))
    rates = OutputRates(job_bytes=1000)
    async with Ledger(SqlStore(database), lambda _: None, rates=rates, max_waiting=9) as other:
        for number in range(1, 31):
            await apply(other, *appends(job, f"{number:>50}", first=number))
    assert (await stored(store, job.id))[0].start > 10
    assert (await apply(small, *appends(job, "last", first=0))).next_offset == 1514


async def test_an_append_is_not_refused_by_what_its_server_knew_before_another_one_changed_it(
    database: Database, ledger: Ledger, store: Store
) -> None:
    job = await running(ledger, max_attempts=3)
    await apply_all(ledger, [*appends(job, "one "), *appends(job, "x", stream="log")])
    async with Ledger(SqlStore(database), lambda _: None, max_waiting=100) as other:
        await apply(other, Release(job_id=job.id, attempt=1))
        (again,) = await claim_jobs(other, claim())
    assert again.attempt == 2
    await apply(ledger, *appends(again, "two"))
    assert await text_of(store, job.id) == "one two"


async def test_a_commit_that_failed_leaves_no_trace(
    ledger: Ledger, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await running(ledger)
    await apply(ledger, *appends(job, "one "))
    async with store.transaction() as transaction:
        kind = type(transaction)
    real = kind.append

    async def failing(self: Any, *args: Any, **options: Any) -> Any:
        await real(self, *args, **{**options, "last": False})
        raise StoreUnavailable("gone")

    with monkeypatch.context() as patched:
        patched.setattr(kind, "append", failing)
        (outcome,) = await ledger.submit(appends(job, "lost ", first=2), SERVICE)
    assert isinstance(outcome, StoreUnavailable)
    assert (await apply(ledger, *appends(job, "two", first=2))).next_offset == 7
    assert await text_of(store, job.id) == "one two"


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("scope", ["caller", "server"])
async def test_output_that_comes_too_fast_is_refused_until_later(store: Store, scope: str) -> None:
    clock, own = Clock(), scope == "caller"
    rates = OutputRates(owner_rate=100 if own else 1e9, all_rate=1e9 if own else 100, clock=clock)
    async with Ledger(store, lambda _: None, rates=rates, max_waiting=100) as ledger:
        ledger.outages = NoOutages()
        job = await running(ledger)
        other = await running(ledger, user_id="bob")
        # At once what is allowed for a second, and 150 bytes more.
        await apply(ledger, *appends(job, "x" * 250))
        (outcome,) = await ledger.submit(appends(job, "y", first=2), SERVICE)
        assert isinstance(outcome, LimitExceeded)
        assert outcome.limit == "output_bytes_per_second"
        assert (outcome.scope, outcome.retry_after) == (scope, 1.5)
        assert rates.refused[scope] == 1
        (others,) = await ledger.submit(appends(other, "y"), SERVICE)
        assert isinstance(others, LimitExceeded) is not own
        clock.now = 1.5
        assert await apply(ledger, *appends(job, "y", first=2))
