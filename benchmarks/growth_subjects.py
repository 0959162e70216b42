"""Filled databases: how large they are, and which of their jobs are called for."""

import asyncio
import random
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import psutil  # type: ignore[import-untyped]

from benchmarks.filling import Filling
from benchmarks.subjects import Database

GIB = 1024**3

Job = tuple[str, str, str]
"""Its id, its owner and its type."""


@dataclass(frozen=True)
class Sized:
    """A database with its jobs."""

    database: Database
    filling: Filling
    _random: random.Random = field(default_factory=lambda: random.Random(5))

    def pick(self, which: str) -> Job:
        """Pick a job at random: any, a large owner's, a small owner's, or a running one."""
        rows = self.filling.rows
        match which:
            case "large":
                number = self._random.randrange(1, rows.jobs + 1, 2)
            case "small":
                number = self._random.randrange(2, rows.jobs + 1, 2)
            case "running":
                number = rows.ended + self._random.randint(1, rows.running)
            case _:
                number = self._random.randint(1, rows.jobs)
        return self.filling.job(number)


def describe(sized: Sized) -> str:
    """Say how large a database is, how long it took to fill, and what memory there is for it."""
    database, rows = sized.database, sized.filling.rows
    memory = psutil.virtual_memory()
    return (
        f"{database.name} with {rows.jobs:,} jobs, {rows.running + rows.waiting:,} of them active, "
        f"has {_bytes_of(database) / GIB:.2f} GiB and was filled in {sized.filling.seconds:.0f} s; "
        f"then the system's page cache held {memory.cached / GIB:.1f} GiB, of "
        f"{memory.total / GIB:.0f} GiB of memory."
    )


def _bytes_of(database: Database) -> int:
    if database.pid is None:
        return Path(database.url.removeprefix("sqlite:///")).stat().st_size
    return asyncio.run(_ask_size(database.url))


async def _ask_size(url: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        size: int = await connection.fetchval("SELECT pg_database_size(current_database())")
    finally:
        await connection.close()
    return size
