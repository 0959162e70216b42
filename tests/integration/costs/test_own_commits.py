"""What a server reads of the feed while another one commits too: the other's changes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jobledger_server.database.url import parse_url
from jobledger_server.domain.commands import ChangeStatus, Create, Report
from jobledger_server.domain.job import JobStatus
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.database import open_database
from jobledger_server.sql.sql_store import SqlStore
from jobledger_server.watch.change_buffer import ChangeBuffer
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.tail import Tail
from tests.support.databases import several_servers
from tests.support.ledger_calls import apply
from tests.support.tasks import running

AT_ONCE = 8
"""Lifecycles on each server."""

LIFECYCLES = 5
"""One after the other, of each of these."""

CHANGES = 5
"""Of a lifecycle."""


@asynccontextmanager
async def server(database_url: str) -> AsyncIterator[tuple[Ledger, WatchHub, asyncio.Event]]:
    """A server as far as the feed goes: its own connections, and polls as the settings have it."""
    database = open_database(parse_url(database_url))
    store, poll_now = SqlStore(database), asyncio.Event()
    head = await store.verify_identity()
    hub = WatchHub(ChangeBuffer(head.seq), poll_now.set, max_watches=1)
    try:
        async with (
            running(Tail(store, hub, poll_now, head).run()),
            Ledger(store, hub.publish, max_waiting=1000) as ledger,
        ):
            yield ledger, hub, poll_now
    finally:
        await database.close()


async def lifecycle(ledger: Ledger) -> None:
    job = (await apply(ledger, Create(user_id="ada", job_type="t"))).job
    await apply(ledger, ChangeStatus(job_id=job.id, target=JobStatus.PROCESSING))
    for progress in (30, 60):
        await apply(ledger, Report(job_id=job.id, progress=progress))
    await apply(ledger, ChangeStatus(job_id=job.id, target=JobStatus.COMPLETED))


@several_servers
async def test_of_two_servers_each_reads_at_most_a_tenth_of_its_own_commits(
    database_url: str,
) -> None:
    async def work(ledger: Ledger) -> None:
        for _ in range(LIFECYCLES):
            await lifecycle(ledger)

    own = AT_ONCE * LIFECYCLES * CHANGES
    async with server(database_url) as here, server(database_url) as there:
        ledgers = [ledger for ledger, _, _ in (here, there)]
        await asyncio.gather(*(work(ledger) for ledger in ledgers for _ in range(AT_ONCE)))
        for _, hub, poll_now in (here, there):
            async with asyncio.timeout(20):
                while hub.seq < 2 * own:
                    poll_now.set()
                    await asyncio.sleep(0)
            assert hub.delivered["commit"] >= 0.9 * own
