"""Measures what it takes a replica to read what others commit: processor time for each change.

    python -m benchmarks.reading

Jobs are written through the ledger, then read as the tail reads them: pages of the
feed into a window. What it prints is used in docs/scaling.md.
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from benchmarks.outcome import describe_machine
from benchmarks.subjects import new_database
from jobledger_server.domain.commands import Create
from jobledger_server.ledger.ledger import Ledger
from jobledger_server.sql.engine import open_database, parse_url
from jobledger_server.sql.schema import migrate
from jobledger_server.sql.store import SqlStore
from jobledger_server.watch.hub import WatchHub
from jobledger_server.watch.tail import PAGE
from jobledger_server.watch.window import Window

JOBS = 20_000
ROUNDS = 5
CALLERS = 256


async def fill(store: SqlStore) -> None:
    async with Ledger(store, lambda _: None, max_waiting=JOBS) as ledger:
        left = iter(range(JOBS))

        async def create() -> None:
            for _ in left:
                await ledger.apply(Create(user_id="ada", job_type="render"))

        await asyncio.gather(*(create() for _ in range(CALLERS)))


async def read(store: SqlStore) -> float:
    """Read everything into a window; return the microseconds of this process for each change."""
    hub = WatchHub(Window(0), lambda: None, max_watches=1)
    begin = time.process_time()
    while (page := await store.changes_after(hub.seq, limit=PAGE)).changes:
        hub.deliver(page.changes)
    return (time.process_time() - begin) / JOBS * 1e6


async def measure(title: str, url: str) -> None:
    database = open_database(parse_url(url))
    await migrate(database)
    store = SqlStore(database)
    try:
        await fill(store)
        times = [await read(store) for _ in range(ROUNDS)]
    finally:
        await store.close()
    print(f"{title:10}  {statistics.median(times):5.1f} µs a change")


def main() -> None:
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        for name in ("SQLite", "PostgreSQL"):
            with new_database(name, Path(folder)) as database:
                uvloop.run(measure(name, database.url))


if __name__ == "__main__":
    main()
