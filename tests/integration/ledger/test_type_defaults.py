"""Creations, after an operator has set the defaults of their type at another server."""

from jobledger_server.domain.commands import Create, CreateAll
from jobledger_server.domain.job import Job, Silent
from jobledger_server.domain.type_defaults import NO_DEFAULTS, TypeDefaults
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.store import JobQuery
from tests.support.ledger_calls import apply, create_all

URGENT = TypeDefaults(priority=8)


def silent(request_id: str = "") -> Create:
    return Create(user_id="ada", job_type="render", request_id=request_id, silent=Silent.PRIORITY)


async def stored(store: SqlStore) -> list[Job]:
    page = await store.list_jobs(JobQuery(user_id="ada"), before=None, limit=100)
    return list(page.jobs)


async def test_no_job_is_created_without_the_defaults_whose_call_has_returned(
    ledger: Ledger, store: SqlStore
) -> None:
    """This server did not hear of them: the other one committed them in the database."""
    assert (await apply(ledger, silent())).job.priority == 5
    await store.queue_settings.set_type_defaults("render", URGENT)
    assert (await apply(ledger, silent())).job.priority == 8
    await store.queue_settings.set_type_defaults("render", NO_DEFAULTS)
    assert (await apply(ledger, silent())).job.priority == 5
    assert sorted(job.priority for job in await stored(store)) == [5, 5, 8]


async def test_every_job_of_a_batch_has_the_defaults_of_its_type(
    ledger: Ledger, store: SqlStore
) -> None:
    await store.queue_settings.set_type_defaults("render", URGENT)
    said = Create(user_id="ada", job_type="render", priority=1)
    other = Create(user_id="ada", job_type="export", silent=Silent.PRIORITY)
    for count in (1, 20):  # from some number on, PostgreSQL copies new rows
        jobs = await create_all(ledger, CreateAll((silent(), said, other) * count))
        assert [job.priority for job in jobs] == [8, 1, 5] * count
    priorities = {(job.job_type, job.priority) for job in await stored(store)}
    assert priorities == {("render", 8), ("render", 1), ("export", 5)}
