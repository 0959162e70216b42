"""What a batch costs the database: so many statements, however many commands are in it."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from jobledger_server.domain.commands import Cancel, Claim, Create, Delete, Report, Transit
from jobledger_server.domain.model import JobId, JobStatus, Micros
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.engine import open_database, parse_url
from jobledger_server.sql.postgresql import COPIED
from jobledger_server.sql.store import SqlStore
from tests.support.counted import Errands, counted
from tests.support.store_writer import moved, saved

CALLERS = 50


@pytest.fixture
async def errands(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Errands]:
    """What is run from now on; the connection is there already."""
    with counted(monkeypatch) as errands:
        await together(ledger, [creation(-1)])
        errands.taken()
        yield errands


@pytest.fixture
def on_sqlite(database_url: str) -> bool:
    return database_url.startswith("sqlite")


@pytest.fixture
def begin(on_sqlite: bool) -> list[str]:  # noqa: FBT001
    """How a batch that reads begins: PostgreSQL is asked for the time, SQLite's is our own."""
    return ["BEGIN"] if on_sqlite else ["SELECT clock", "BEGIN"]


@pytest.fixture
def known(on_sqlite: bool) -> list[str]:  # noqa: FBT001
    """How running jobs are loaded that were written here: nothing is read of them but a mark."""
    return ["PRAGMA data_version"] if on_sqlite else ["SELECT jobs"]


Written = Callable[..., list[str]]


@pytest.fixture
def written(on_sqlite: bool) -> Written:  # noqa: FBT001
    """How a batch takes its places and writes: on PostgreSQL in one go."""

    def written(*writes: str) -> list[str]:
        places_first = ["UPDATE feed", *writes]
        return places_first if on_sqlite else [" + ".join(places_first)]

    return written


END = ["COMMIT"]
STEPS = ("UPDATE jobs", "INSERT job_transitions")


def creation(number: int) -> Create:
    return Create(user_id="ada", job_type="render", request_id=f"r-{number}")


async def together(ledger: Ledger, commands: list[object]) -> list[JobId]:
    decisions = await asyncio.gather(*(ledger.apply(command) for command in commands))
    return [decision.job.id for decision in decisions]


async def test_creations_take_two_statements_however_many_they_are(
    ledger: Ledger,
    errands: Errands,
    on_sqlite: bool,  # noqa: FBT001
) -> None:
    """On PostgreSQL a few are one statement, which is a transaction of its own."""
    few = ["SELECT clock", "UPDATE feed + INSERT jobs"]
    many = ["SELECT clock", "BEGIN", "UPDATE feed", "COPY jobs", *END]
    if on_sqlite:
        few = many = ["BEGIN", "UPDATE feed", "INSERT jobs", *END]
    await together(ledger, [creation(0)])
    assert errands.taken() == few
    await together(ledger, [creation(number) for number in range(1, COPIED)])
    assert errands.taken() == few
    await together(ledger, [creation(number) for number in range(COPIED, 2 * COPIED)])
    assert errands.taken() == many
    await together(ledger, [creation(number) for number in range(2 * COPIED, 2 * COPIED + CALLERS)])
    assert errands.taken() == many


async def test_repeated_creations_are_looked_for_until_none_is_repeated_any_more(
    ledger: Ledger,
    errands: Errands,
    begin: list[str],
    written: Written,
    on_sqlite: bool,  # noqa: FBT001
) -> None:
    once = [creation(number) for number in range(3)]
    ids = await together(ledger, once)
    unseen = errands.taken()
    assert (await together(ledger, [*once, creation(3)]))[:3] == ids
    in_vain = [*unseen[:-1], "ROLLBACK"] if on_sqlite else unseen
    looking = [*begin, "SELECT jobs", *written("INSERT jobs"), *END]
    assert errands.taken() == [*in_vain, *looking]
    assert await together(ledger, once) == ids
    assert errands.taken() == [*begin, "SELECT jobs", *END]
    await together(ledger, [Cancel(job_id=ids[0], user_id="ada", reason="")])
    errands.taken()
    for number, expected in enumerate((looking, unseen), start=100):
        await together(ledger, [creation(number)])
        assert errands.taken() == expected


async def test_reports_take_as_many_statements_however_many_they_are(
    ledger: Ledger,
    errands: Errands,
    begin: list[str],
    known: list[str],
    written: Written,
) -> None:
    ids = await together(ledger, [creation(number) for number in range(CALLERS)])
    starts = [Transit(job_id=id_, target=JobStatus.PROCESSING, worker_id="w") for id_ in ids]
    await together(ledger, starts)
    errands.taken()
    await together(ledger, [Report(job_id=id_, attempt=1, progress=10) for id_ in ids])
    assert errands.taken() == [*begin, *known, *written("UPDATE jobs"), *END]


async def test_jobs_that_another_server_wrote_are_read_whole(
    ledger: Ledger, database_url: str, errands: Errands, begin: list[str], written: Written
) -> None:
    other = SqlStore(open_database(parse_url(database_url)))
    made = [await saved(other) for _ in range(3)]
    ids = [(await moved(other, job, JobStatus.PROCESSING)).id for job in made]
    await other.close()
    errands.taken()
    await together(ledger, [Report(job_id=id_, attempt=1, progress=10) for id_ in ids])
    assert errands.taken() == [*begin, "SELECT jobs", *written("UPDATE jobs"), *END]


async def test_transitions_take_one_more(
    ledger: Ledger, errands: Errands, begin: list[str], written: Written
) -> None:
    ids = await together(ledger, [creation(number) for number in range(CALLERS)])
    errands.taken()
    starts = [Transit(job_id=id_, target=JobStatus.PROCESSING, worker_id="w") for id_ in ids]
    await together(ledger, starts)
    assert errands.taken() == [*begin, "SELECT jobs", *written(*STEPS), *END]


async def test_claims_take_one_search_more_and_no_transaction_where_there_is_nothing(
    ledger: Ledger, errands: Errands, begin: list[str], written: Written
) -> None:
    await together(ledger, [creation(number) for number in range(CALLERS)])
    claims = [
        Claim(
            worker_id=f"w-{number}",
            job_types=frozenset({"render"}),
            max_jobs=1,
            lease_duration=Micros(60_000_000),
        )
        for number in range(CALLERS)
    ]
    await ledger.claim(claims[0])  # the connection that reads is there from now on
    errands.taken()
    await asyncio.gather(*map(ledger.claim, claims))
    found, started = ["SELECT jobs"], ["SELECT jobs", *written(*STEPS)]
    assert errands.taken() == [*found, *begin, *started, *END]
    assert await ledger.claim(claims[0]) == []
    assert errands.taken() == found


async def test_a_refused_command_writes_nothing(
    ledger: Ledger, errands: Errands, begin: list[str]
) -> None:
    results = await asyncio.gather(
        *(ledger.apply(Report(job_id=JobId(f"j-{n}"), progress=1)) for n in range(CALLERS)),
        return_exceptions=True,
    )
    assert len(results) == CALLERS
    assert errands.taken() == [*begin, "SELECT jobs", *END]


async def test_deletions_come_after_the_places_and_before_what_is_written(
    ledger: Ledger, errands: Errands, begin: list[str]
) -> None:
    ids = await together(ledger, [creation(number) for number in range(3)])
    await together(ledger, [Cancel(job_id=id_, user_id="ada", reason="") for id_ in ids])
    errands.taken()
    await together(ledger, [Delete(job_id=id_, user_id="ada") for id_ in ids])
    rest = ["UPDATE feed", "DELETE jobs", "INSERT tombstones"]
    assert errands.taken() == [*begin, "SELECT jobs", *rest, *END]
