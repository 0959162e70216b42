"""Replicas at rest: what each asks of PostgreSQL while nothing happens."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import ExitStack

import asyncpg

from benchmarks.report import Figure
from benchmarks.subjects import Database, serving_on

SETTLE_SECONDS = 3.0
"""After its start a server does some things for once."""

_TRANSACTIONS = """
    SELECT xact_commit + xact_rollback FROM pg_stat_database
    WHERE datname = current_database()
"""


class Resting:
    """Counts the transactions of one replica alone, by PostgreSQL's own statistics.

    A replica at rest asks single statements, each a transaction of its own.
    """

    def __init__(
        self, database: Database, ways: Mapping[str, tuple[str, ...]], *, seconds: float
    ) -> None:
        self._database = database
        self._ways = ways
        self._seconds = seconds
        self._figures = {way: Figure(f"A replica at rest, {way}: queries", "1/s") for way in ways}

    @property
    def figures(self) -> list[Figure]:
        return list(self._figures.values())

    notes: tuple[str, ...] = ()

    def prepare(self) -> None:
        pass

    def measure_round(self) -> None:
        for way, arguments in self._ways.items():
            with ExitStack() as stack:
                stack.enter_context(serving_on(self._database, *arguments))
                time.sleep(SETTLE_SECONDS)
                self._figures[way].add(asyncio.run(self._count()))

    async def _count(self) -> float:
        connection = await asyncpg.connect(self._database.url)
        try:
            before = await connection.fetchval(_TRANSACTIONS)
            begin = time.monotonic()
            await asyncio.sleep(self._seconds)
            seconds = time.monotonic() - begin
            after = await connection.fetchval(_TRANSACTIONS)
        finally:
            await connection.close()
        # Less our own: one of our questions was counted between the two.
        return float((after - before - 1) / seconds)
