"""How a database would run a statement: which index it uses, not how long it takes."""

from collections.abc import Sequence
from typing import Any

from jobledger_server.sql.database import Database


async def plan(database: Database, statement: str, values: Sequence[Any], *settings: str) -> str:
    """Return the plan of a statement, its text and its values as the driver takes both.

    On PostgreSQL each of `settings` is turned off first. An empty table, for instance, is read
    whole unless `enable_seqscan` is off.
    """
    on_sqlite = database.dialect.name == "sqlite"
    explain = f"{'EXPLAIN QUERY PLAN' if on_sqlite else 'EXPLAIN'} {statement}"
    async with database.reader.connect() as connection:
        own = (await connection.get_raw_connection()).driver_connection
        driver = database.dialect.drivers()(own)
        if not on_sqlite:
            for setting in settings:
                await connection.exec_driver_sql(f"SET LOCAL {setting} = off")
        return "\n".join(str(tuple(row)) for row in await driver.fetch(explain, values))
