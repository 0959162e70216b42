"""How a batch finds its rows: by an index, also in a table that is small."""

from collections.abc import Sequence
from typing import Any

from jobledger_server.domain.commands import Create, CreateAll
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.postgresql import PLACES_TAKEN, at_once
from jobledger_server.sql.statements import bind_owned
from jobledger_server.sql.store import SqlStore

JOBS = 10_000
"""So few that PostgreSQL, left to itself, reads all of them to find these."""

CHANGED = 60
CREATED = 500


async def filled(ledger: Ledger) -> list[str]:
    """Make jobs, and return the ids of some."""
    ids: list[str] = []
    for start in range(0, JOBS, 1000):
        numbers = range(start, start + 1000)
        creations = (Create(user_id="ada", job_type="t", request_id=f"r-{n}") for n in numbers)
        ids += [job.id for job in await ledger.create_all(CreateAll(tuple(creations)))]
    return ids[:: JOBS // CHANGED][:CHANGED]


async def plan(store: SqlStore, statement: str, values: Sequence[Any]) -> str:
    """Return how the database would run a statement on a connection of the store's."""
    on_sqlite = store._dialect.name == "sqlite"
    explain = f"{'EXPLAIN QUERY PLAN' if on_sqlite else 'EXPLAIN'} {statement}"
    async with store._database.writer.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        driver = store._dialect.driver(raw)
        return "\n".join(str(tuple(row)) for row in await driver.fetch(explain, values))


async def test_a_batch_finds_its_rows_by_an_index(store: SqlStore, ledger: Ledger) -> None:
    # One test for all statements: most of its time is the table's.
    ids = await filled(ledger)
    for index, statement, values in (
        requests_made_before(store),
        reports(store, ids),
        *owned(store, ids),
    ):
        found = await plan(store, statement, values)
        assert index in found
        assert "Seq Scan" not in found
        assert "SCAN jobs" not in found


def requests_made_before(store: SqlStore) -> tuple[str, str, Sequence[Any]]:
    pairs = [("ada", f"r-{number}") for number in range(CREATED)]
    wanted = store._dialect.bind_pairs("requests", pairs)
    statement = store._statements.find_created
    return "uq_jobs_user_id_request_id", statement.text, statement.values(wanted)


def owned(store: SqlStore, ids: Sequence[str]) -> list[tuple[str, str, Sequence[Any]]]:
    wanted = bind_owned(store._dialect, [], [(id_, "ada") for id_ in ids])
    index = "sqlite_autoindex_jobs_1" if store._dialect.name == "sqlite" else "pk_jobs"
    statements = (store._statements.read_jobs, store._statements.lock_owned_jobs)
    return [(index, each.text, each.values(wanted)) for each in statements]


def reports(store: SqlStore, ids: Sequence[str]) -> tuple[str, str, Sequence[Any]]:
    rows = [(id_, 7, "m", 1, 1, 1, 1, 2, JOBS + n) for n, id_ in enumerate(ids, start=1)]
    if store._dialect.name == "sqlite":
        values = [value for row in rows for value in row]
        return "sqlite_autoindex_jobs_1", store._statements.report_jobs(CHANGED), values
    columns = list(zip(*rows, strict=True))
    statement = at_once(PLACES_TAKEN, ((store._statements.report_jobs, len(columns)),))
    return "pk_jobs", statement, [JOBS, *columns]
