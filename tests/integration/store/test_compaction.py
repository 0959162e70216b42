"""Several servers forget deleted jobs at the same time."""

import asyncio
from typing import Any

from sqlalchemy import event

from jobledger_server.check.invariants import violations
from jobledger_server.database.url import parse_url
from jobledger_server.domain.commands import Delete
from jobledger_server.domain.job import Micros
from jobledger_server.sql.database import Database, open_database
from jobledger_server.sql.sql_store import SqlStore
from tests.support.databases import execute, several_servers
from tests.support.store_writer import append, finished, step

SLOWLY = (
    (
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.01); RETURN old; END $$"
    ),
    "CREATE TRIGGER slow BEFORE DELETE ON changes FOR EACH ROW EXECUTE FUNCTION slow()",
)
"""Both servers are at work at the same time then."""


@several_servers
async def test_two_servers_forget_each_deleted_job_once_and_do_not_deadlock(
    store: SqlStore, database: Database, database_url: str
) -> None:
    """Even if their statements find the rows in different orders, as their plans may be others."""
    for _ in range(20):
        job = await finished(store)
        await append(store, step(job, Delete(job_id=job.id, user_id="ada")))
    await execute(database, *SLOWLY)
    other = open_database(parse_url(database_url))

    @event.listens_for(other.writer.sync_engine, "connect")
    def plan_otherwise(connection: Any, _: object) -> None:
        connection.cursor().execute("SET enable_nestloop = off")

    stores = store, SqlStore(other)
    counts = await asyncio.gather(*(each.compact_deletions(Micros(0), limit=50) for each in stores))
    await other.close()
    assert sorted(counts) == [0, 20]
    head = await store.feed_head()
    assert head.compacted_seq == head.seq
    assert await violations(database) == []
