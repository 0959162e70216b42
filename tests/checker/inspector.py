"""Looks into the database during a run: recounts it, and has it note down every start.

Triggers see each start within its commit, so they are exact where clients see too little.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from sqlalchemy import text

from jobledger_server.check.invariants import violations
from jobledger_server.sql.database import Database
from tests.checker.history import History, Recount, Share, Start

LOOK_SECONDS = 1.0

_STARTED = "NEW.phase = 3 AND (OLD.phase IS NULL OR OLD.phase <> 3 OR OLD.attempt < NEW.attempt)"
_DUE = "coalesce(OLD.retry_time, CASE OLD.attempt WHEN 0 THEN OLD.schedule_time END, 0)"
_CHECK = (
    "WHEN EXISTS (SELECT 1 FROM paused_types WHERE job_type = NEW.job_type)"
    " THEN 'its type is paused'"
)


def _key_check(key: str, name: str) -> str:
    """Return the query for what is wrong with a start of this key, whose rule may have the name."""
    return (
        "(SELECT CASE WHEN own.pause_time IS NOT NULL OR general.pause_time IS NOT NULL"
        "  THEN 'its key is paused'"
        f" WHEN (SELECT count(*) FROM jobs WHERE concurrency_key = {key} AND phase = 3)"
        "  > coalesce(own.max_running, general.max_running) THEN 'its key is full' ELSE '' END"
        " FROM (SELECT 1 AS one) AS one_row"
        f" LEFT JOIN limit_rules AS own ON own.name = {key}"
        f" LEFT JOIN limit_rules AS general ON general.name = {name})"
    )


_POSTGRESQL = (
    """
    CREATE TABLE IF NOT EXISTS seen_starts (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, job_id text, key text, wrong text,
        due bigint, time bigint)
    """,
    # A trigger runs at the end of the statement, which holds the feed's lock.
    f"""
    CREATE OR REPLACE FUNCTION see_start() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO seen_starts (job_id, key, due, time, wrong) SELECT
            NEW.id, NEW.concurrency_key, {_DUE}, NEW.attempt_time,
            CASE {_CHECK} WHEN NEW.concurrency_key = '' THEN '' ELSE
            {_key_check("NEW.concurrency_key", "split_part(NEW.concurrency_key, ':', 1)")} END;
        RETURN NULL;
    END $$
    """,
    f"""
    CREATE OR REPLACE TRIGGER see_start AFTER UPDATE ON jobs FOR EACH ROW WHEN ({_STARTED})
    EXECUTE FUNCTION see_start()
    """,
)
_KEY = "seen_starts.key"
_NAME = f"substr({_KEY}, 1, instr({_KEY} || ':', ':') - 1)"
_SQLITE = (
    """
    CREATE TABLE IF NOT EXISTS seen_starts (
        number INTEGER PRIMARY KEY, job_id TEXT, key TEXT, wrong TEXT, due INTEGER,
        time INTEGER, unchecked INTEGER)
    """,
    "CREATE INDEX IF NOT EXISTS seen_unchecked ON seen_starts (unchecked) WHERE unchecked = 1",
    f"""
    CREATE TRIGGER IF NOT EXISTS see_start AFTER UPDATE ON jobs WHEN {_STARTED} BEGIN
        INSERT INTO seen_starts (job_id, key, due, time, wrong, unchecked) SELECT
            NEW.id, NEW.concurrency_key, {_DUE}, NEW.attempt_time,
            CASE {_CHECK} ELSE '' END, NEW.concurrency_key <> '';
    END
    """,
    # A trigger runs for each row. The feed is written after all jobs of the commit.
    *(
        f"""
        CREATE TRIGGER IF NOT EXISTS see_key_{event.lower()} AFTER {event} ON changes
        WHEN EXISTS (SELECT 1 FROM seen_starts WHERE unchecked = 1) BEGIN
            UPDATE seen_starts SET unchecked = 0, wrong = wrong || {_key_check(_KEY, _NAME)}
            WHERE unchecked = 1;
        END
        """
        for event in ("INSERT", "UPDATE")
    ),
)

_SHARES = """
    SELECT queues.job_type, queues.priority,
        min(queues.vtime) - min(levels.vtime), max(queues.vtime) - min(levels.vtime)
    FROM queues JOIN queues AS levels ON levels.fairness_key = ''
        AND levels.job_type = queues.job_type AND levels.priority = queues.priority
    WHERE queues.claimable = 1 GROUP BY queues.job_type, queues.priority
"""
_DOUBLES = """
    SELECT user_id, job_type, unique_key, count(*) FROM jobs
    WHERE unique_key <> '' AND complete_time IS NULL
    GROUP BY user_id, job_type, unique_key HAVING count(*) > 1
"""
_OVERFULL = """
    SELECT job_id, sum(bytes) FROM (
        SELECT job_id, sum(length(data)) AS bytes FROM outputs AS stored
        WHERE start > (SELECT min(start) FROM outputs AS first
            WHERE first.job_id = stored.job_id AND first.stream = stored.stream)
        GROUP BY job_id, stream) AS streams
    GROUP BY job_id HAVING sum(bytes) > :most
"""
_FIRST_DUE = "SELECT min(coalesce(retry_time, schedule_time)) FROM jobs WHERE phase = 2"


class Inspector:
    """Looks into one database, and writes down what it sees."""

    def __init__(self, database: Database, history: History) -> None:
        self._database = database
        self._history = history

    async def prepare(self) -> None:
        """Have the database note down every start from now on."""
        sqlite = self._database.dialect.name == "sqlite"
        async with self._database.writer.begin() as connection:
            for statement in _SQLITE if sqlite else _POSTGRESQL:
                await connection.exec_driver_sql(statement)

    async def look(self) -> None:
        """Recount once, if the database answers."""
        with suppress(*self._database.unavailable_errors):
            wrong = await violations(self._database)
            shares = await self._fetch(_SHARES)
            doubles = await self._fetch(_DOUBLES)
            overfull = await self._fetch(_OVERFULL, most=self._history.most_output)
            ((due,),) = await self._fetch(_FIRST_DUE)
            self._history.recounts.append(
                Recount(
                    time.monotonic(),
                    tuple(what for what in wrong if "free slot" not in what),
                    tuple(what for what in wrong if "free slot" in what),
                    tuple(str(tuple(row)) for row in doubles),
                    tuple(Share((row[0], row[1]), row[2], row[3]) for row in shares),
                    time.time() - due / 1e6 if due else 0.0,
                    tuple(str(tuple(row)) for row in overfull),
                )
            )

    async def read_starts(self) -> None:
        """Read what the database has noted down."""
        rows = await self._fetch(
            "SELECT job_id, key, wrong, due, time FROM seen_starts ORDER BY number"
        )
        self._history.starts = [Start(*row) for row in rows]

    async def _fetch(self, statement: str, **values: Any) -> Sequence[Any]:
        async with self._database.reader.connect() as connection:
            return (await connection.execute(text(statement), values)).all()


@asynccontextmanager
async def inspecting(database: Database, history: History) -> AsyncIterator[Inspector]:
    """Look into a database again and again for as long as the block lasts, and close it."""
    inspector = Inspector(database, history)
    await inspector.prepare()

    try:
        async with looking_often(inspector.look):
            yield inspector
        await inspector.read_starts()
    finally:
        await database.close()


@asynccontextmanager
async def looking_often(look: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Look again and again for as long as the block lasts, and once more at its end."""

    async def look_often() -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await look()

    looking = asyncio.create_task(look_often())
    try:
        yield
        looking.cancel()
        await look()
    finally:
        looking.cancel()
