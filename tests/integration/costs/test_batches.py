"""What a batch costs the database: a bounded number of round trips for any number of commands."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from jobledger_server.database.url import parse_url
from jobledger_server.domain.commands import Cancel, ChangeStatus, Create, Delete, Report
from jobledger_server.domain.job import JobId, JobStatus, Payload
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.database import Database, open_database
from jobledger_server.sql.postgresql.postgresql_driver import COPY_FROM_ROWS as COPIED
from jobledger_server.sql.sql_store import SqlStore
from tests.support.counted import Counted, counting
from tests.support.ledger_calls import apply, claim, claim_jobs
from tests.support.store_writer import moved, saved

CALLERS = 50

CEILINGS = {
    "few creations": {"sqlite": 2, "postgresql": 2},
    "many creations": {"sqlite": 2, "postgresql": 6},
    "new creations, with a query": {"sqlite": 3, "postgresql": 5},
    "repeated creations": {"sqlite": 3, "postgresql": 4},
    "rejected creations": {"sqlite": 3, "postgresql": 2},
    "reports": {"sqlite": 2, "postgresql": 4},
    "reports on jobs of another server": {"sqlite": 3, "postgresql": 5},
    "reports with checkpoints": {"sqlite": 2, "postgresql": 4},
    "heartbeats": {"sqlite": 2, "postgresql": 4},
    "transitions": {"sqlite": 3, "postgresql": 5},
    "claims": {"sqlite": 5, "postgresql": 6},
    "claims that find nothing": {"sqlite": 1, "postgresql": 1},
    "refusals": {"sqlite": 3, "postgresql": 4},
    "deletions": {"sqlite": 3, "postgresql": 5},
}
"""Round trips of one batch: to the database's server, or to the thread of SQLite's connection."""


@pytest.fixture
async def counted(
    ledger: Ledger, database: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Counted]:
    """What is run from now on; the connections are open already."""
    with counting(database, monkeypatch) as counted:
        await together(ledger, [creation(-1)])
        await claim_jobs(ledger, claim("other", worker="w-0"))
        counted.reset()
        yield counted


AssertCheap = Callable[..., None]


@pytest.fixture
def assert_cheap(counted: Counted, database: Database) -> AssertCheap:
    """Fail if more was counted since the last call than these batches may cost."""

    def assert_cheap(*batches: str) -> None:
        ceiling = sum(CEILINGS[batch][database.dialect.name] for batch in batches)
        assert 0 < counted.round_trips <= ceiling, counted.statements
        counted.reset()

    return assert_cheap


def creation(number: int) -> Create:
    return Create(user_id="ada", job_type="render", request_id=f"r-{number}")


async def together(ledger: Ledger, commands: list[object]) -> list[JobId]:
    decisions = await asyncio.gather(*(apply(ledger, command) for command in commands))
    return [decision.job.id for decision in decisions]


async def test_creations_cost_a_fixed_number_of_statements(
    ledger: Ledger, assert_cheap: AssertCheap
) -> None:
    await together(ledger, [creation(0)])
    assert_cheap("few creations")
    await together(ledger, [creation(number) for number in range(1, COPIED)])
    assert_cheap("few creations")
    await together(ledger, [creation(number) for number in range(COPIED, 2 * COPIED)])
    assert_cheap("many creations")
    await together(ledger, [creation(number) for number in range(2 * COPIED, 4 * COPIED)])
    assert_cheap("many creations")


async def test_request_ids_are_queried_only_while_creations_are_repeated(
    ledger: Ledger, assert_cheap: AssertCheap
) -> None:
    once = [creation(number) for number in range(3)]
    ids = await together(ledger, once)
    assert_cheap("few creations")
    assert (await together(ledger, [*once, creation(3)]))[:3] == ids
    assert_cheap("rejected creations", "new creations, with a query")
    assert await together(ledger, once) == ids
    assert_cheap("repeated creations")
    await together(ledger, [creation(100)])
    assert_cheap("new creations, with a query")
    await together(ledger, [creation(101)])
    assert_cheap("few creations")


async def test_reports_cost_a_fixed_number_of_statements(
    ledger: Ledger, counted: Counted, assert_cheap: AssertCheap
) -> None:
    ids = await together(ledger, [creation(number) for number in range(CALLERS)])
    starts = [ChangeStatus(job_id=id_, target=JobStatus.PROCESSING, worker_id="w") for id_ in ids]
    await together(ledger, starts)
    counted.reset()
    await together(ledger, [Report(job_id=id_, attempt=1, progress=10) for id_ in ids])
    assert_cheap("reports")
    checkpoint = Payload(b"c")
    await together(ledger, [Report(job_id=id_, attempt=1, checkpoint=checkpoint) for id_ in ids])
    assert_cheap("reports with checkpoints")
    await together(ledger, [Report(job_id=id_, attempt=1) for id_ in ids])
    assert_cheap("heartbeats")


async def test_jobs_written_by_another_server_cost_a_fixed_number_of_statements(
    ledger: Ledger, database_url: str, counted: Counted, assert_cheap: AssertCheap
) -> None:
    other = SqlStore(open_database(parse_url(database_url)))
    made = [await saved(other) for _ in range(3)]
    ids = [(await moved(other, job, JobStatus.PROCESSING)).id for job in made]
    await other.close()
    counted.reset()
    await together(ledger, [Report(job_id=id_, attempt=1, progress=10) for id_ in ids])
    assert_cheap("reports on jobs of another server")


async def test_transitions_cost_a_fixed_number_of_statements(
    ledger: Ledger, counted: Counted, assert_cheap: AssertCheap
) -> None:
    ids = await together(ledger, [creation(number) for number in range(CALLERS)])
    counted.reset()
    starts = [ChangeStatus(job_id=id_, target=JobStatus.PROCESSING, worker_id="w") for id_ in ids]
    await together(ledger, starts)
    assert_cheap("transitions")


async def test_a_claim_that_finds_nothing_costs_one_query_and_no_transaction(
    ledger: Ledger, counted: Counted, assert_cheap: AssertCheap
) -> None:
    await together(ledger, [creation(number) for number in range(CALLERS)])
    counted.reset()
    claims = [claim(worker=f"w-{number}") for number in range(CALLERS + 1)]  # one is waiting before
    assert {
        len(jobs) for jobs in await asyncio.gather(*(claim_jobs(ledger, each) for each in claims))
    } == {1}
    assert_cheap("claims")
    assert await claim_jobs(ledger, claims[0]) == []
    assert_cheap("claims that find nothing")


async def test_repetitions_are_queried_only_while_jobs_are_repeated_again(
    ledger: Ledger, counted: Counted, assert_cheap: AssertCheap
) -> None:
    ids = await together(ledger, [creation(number) for number in range(3)])
    counted.reset()
    repeats = [Create(user_id="ada", job_type="render", origin_job_id=each) for each in ids]
    await together(ledger, repeats)
    assert_cheap("few creations")
    await together(ledger, repeats)
    assert_cheap("rejected creations", "repeated creations")
    await together(ledger, repeats)
    assert_cheap("repeated creations")


async def test_refused_commands_cost_only_their_reads(
    ledger: Ledger, assert_cheap: AssertCheap
) -> None:
    results = await asyncio.gather(
        *(apply(ledger, Report(job_id=JobId(f"j-{n}"), progress=1)) for n in range(CALLERS)),
        return_exceptions=True,
    )
    assert len(results) == CALLERS
    assert_cheap("refusals")


async def test_deletions_cost_a_fixed_number_of_statements(
    ledger: Ledger, counted: Counted, assert_cheap: AssertCheap
) -> None:
    ids = await together(ledger, [creation(number) for number in range(CALLERS)])
    await together(ledger, [Cancel(job_id=id_, user_id="ada", reason="") for id_ in ids])
    counted.reset()
    await together(ledger, [Delete(job_id=id_, user_id="ada") for id_ in ids])
    assert_cheap("deletions")
