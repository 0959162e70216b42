"""How a batch finds its rows: by an index, also in a table that is small."""

from collections.abc import Sequence
from typing import Any

from jobledger_server.domain.commands import Create, CreateAll
from jobledger_server.domain.job import JobId, Payload
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.database import Database
from jobledger_server.sql.postgresql.batch_statement import FEED_LOCKED, batch_statement
from jobledger_server.sql.rows import report_rows
from jobledger_server.sql.sqlite.sqlite_driver import text_of
from jobledger_server.sql.statements import Statements, bind_ids, statements_for
from tests.support.ledger_calls import create_all
from tests.support.query_plans import plan

JOBS = {"postgresql": 10_000, "sqlite": 1000}
"""So few that PostgreSQL, by its default settings, would read the whole table. What SQLite does
depends on no number."""

CHANGED = 60
CREATED = 500


async def filled(ledger: Ledger, count: int) -> list[JobId]:
    """Make jobs, and return the ids of some."""
    ids: list[JobId] = []
    for start in range(0, count, 1000):
        numbers = range(start, start + 1000)
        creations = tuple(
            Create(user_id="ada", job_type="t", request_id=f"r-{n}", parameters=Payload(b"p"))
            for n in numbers
        )
        ids += [job.id for job in await create_all(ledger, CreateAll(creations))]
    return ids[:: count // CHANGED][:CHANGED]


async def test_a_batch_finds_its_rows_by_an_index(database: Database, ledger: Ledger) -> None:
    # One test for all statements: most of its time is the table's.
    ids = await filled(ledger, JOBS[database.dialect.name])
    statements = statements_for(database.dialect)
    for index, statement, values in (
        requests_made_before(statements),
        repetitions(statements, ids),
        reports(statements, ids),
        reports(statements, ids[:1]),
        *by_id(statements, ids),
    ):
        found = await plan(database, statement, values)
        assert index in found
        assert "Seq Scan" not in found
        assert "SCAN jobs" not in found
        assert "SCAN payloads" not in found


Found = tuple[str, str, Sequence[Any]]
"""An index, and the statement with its values that is to use it."""


def requests_made_before(statements: Statements) -> Found:
    pairs = [("ada", f"r-{number}") for number in range(CREATED)]
    bound = statements.dialect.bind_tuples("requests", pairs)
    statement = statements.find_created
    return "uq_jobs_user_id_request_id", statement.text, statement.values(bound)


def repetitions(statements: Statements, ids: Sequence[JobId]) -> Found:
    bound = bind_ids(statements.dialect, "origins", ids)
    statement = statements.find_reruns
    return "uq_jobs_origin_job_id", statement.text, statement.values(bound)


def index_on_ids(statements: Statements) -> str:
    return "sqlite_autoindex_jobs_1" if statements.dialect.name == "sqlite" else "pk_jobs"


def wanted(statements: Statements, ids: Sequence[JobId]) -> dict[str, Any]:
    return bind_ids(statements.dialect, "ids", ids)


def by_id(statements: Statements, ids: Sequence[JobId]) -> list[Found]:
    return [
        (index_on_ids(statements), each.text, each.values(wanted(statements, ids)))
        for each in (
            statements.read_jobs,
            statements.read_full_jobs,
            statements.lock_jobs,
            statements.lock_claimed,
        )
    ]


def reports(statements: Statements, ids: Sequence[str]) -> Found:
    known = {"progress_message": "m"}
    rows = [
        (id_, *(known.get(column, number) for column in report_rows.columns))
        for number, id_ in enumerate(ids, start=1)
    ]
    if statements.dialect.name == "sqlite":
        values = [value for row in rows for value in row]
        return "sqlite_autoindex_jobs_1", text_of(statements.report_jobs, len(rows)), values
    single = len(rows) == 1
    columns = list(rows[0] if single else zip(*rows, strict=True))
    return (
        "pk_jobs",
        batch_statement(FEED_LOCKED, ((statements.report_jobs, int(single)),)),
        [JOBS["postgresql"], len(rows), None, *columns],
    )
