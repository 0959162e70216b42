"""A server with nothing to do beside a full table: what it asks its database, and what that costs.

Statements are counted exactly. PostgreSQL logs every one (`log_statement`); SQLite
has no log, so there the server runs with tracing/sitecustomize.py, which has the
driver write each down. A few a second are no load either way.
"""

import asyncio
import json
import os
import re
import sqlite3
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import Select
from sqlalchemy.dialects import postgresql, sqlite

from benchmarks.processes import HERE, BenchmarkError, cpu_seconds
from benchmarks.report import Figure
from benchmarks.subjects import Database, Subject, serving_on
from jobledger_server.ledger.reaper import BATCH
from jobledger_server.sql.engine import open_database, parse_url
from jobledger_server.sql.statements import Statements

SETTLE_SECONDS = 2.0
"""After its start a server does some things for once."""

LOOKS = 30
"""How often the reaper's query is timed in a round."""

_LOGGED = re.compile(r"LOG:  (?:statement|execute [^:]*): (.*)")
_KINDS = {"deadline": "the reaper's look", "FROM feed": "the look at the feed"}

TERMINAL_SHARES = {"COMPLETED": 0.90, "PARTIAL": 0.03}


@dataclass(frozen=True)
class Idler:
    """A server that idles, and the file that holds every statement it gave to its database."""

    subject: Subject
    trace: Path


def mix(jobs: int) -> dict[str, int]:
    """Return how many jobs are in which state: 1 % active and the newest, half of it running."""
    counts = {status: int(jobs * share) for status, share in TERMINAL_SHARES.items()}
    active = {"PROCESSING": jobs // 200, "QUEUED": jobs // 200}
    failed = jobs - sum(counts.values()) - sum(active.values())
    return {**counts, "FAILED": failed, **active}


@contextmanager
def idling(databases: Sequence[Database]) -> Iterator[list[Idler]]:
    """Serve databases, every statement written down, for as long as the block lasts."""
    with ExitStack() as stack:
        yield [stack.enter_context(_idling_on(database)) for database in databases]


@contextmanager
def _idling_on(database: Database) -> Iterator[Idler]:
    if database.pid is None:
        trace = database.folder / "trace"
        path = os.pathsep.join([str(HERE / "tracing"), os.environ.get("PYTHONPATH", "")])
        environment = {"PYTHONPATH": path, "JOBLEDGER_TRACE": str(trace)}
        with serving_on(database, environment=environment) as subject:
            yield Idler(subject, trace)
    else:
        asyncio.run(_log_statements(database.url, "all"))
        try:
            with serving_on(database) as subject:
                yield Idler(subject, Path(f"/proc/{database.pid}/fd/2").resolve())
        finally:
            asyncio.run(_log_statements(database.url, "none"))


async def _log_statements(url: str, which: str) -> None:
    """Have every connection that comes from now on log such statements."""
    connection = await asyncpg.connect(url)
    try:
        name = await connection.fetchval("SELECT current_database()")
        await connection.execute(f"ALTER DATABASE {name} SET log_statement = '{which}'")
    finally:
        await connection.close()


class Idle:
    """Watches all servers do nothing at the same time, then times the reaper's query."""

    def __init__(self, idlers: Sequence[Idler], *, jobs: int, seconds: float) -> None:
        self._idlers = idlers
        self._jobs = jobs
        self._seconds = seconds
        self._figures: dict[str, Figure] = {}
        self._plans: dict[str, str] = {}
        self._kinds: dict[str, Counter[str]] = {i.subject.database: Counter() for i in idlers}
        self._watched = 0.0

    @property
    def figures(self) -> list[Figure]:
        return list(self._figures.values())

    @property
    def notes(self) -> list[str]:
        notes = []
        for database, kinds in self._kinds.items():
            shares = (f"{kind} {n / self._watched:.2f}" for kind, n in kinds.most_common())
            notes.append(
                f"Statements a second of an idle server on {database}: {', '.join(shares)}."
            )
        for database, plan in self._plans.items():
            notes.append(f"The reaper's query among {self._jobs:,} jobs on {database}: {plan}.")
        return notes

    def prepare(self) -> None:
        time.sleep(SETTLE_SECONDS)

    def measure_round(self) -> None:
        places = [idler.trace.stat().st_size for idler in self._idlers]
        used = [self._cpu(idler.subject) for idler in self._idlers]
        begin = time.monotonic()
        time.sleep(self._seconds)
        wall = time.monotonic() - begin
        self._watched += wall
        for idler, place, (server, database) in zip(self._idlers, places, used, strict=True):
            name = idler.subject.database
            statements = _statements(idler, place)
            self._kinds[name].update(map(_kind, statements))
            server_now, database_now = self._cpu(idler.subject)
            self._add(f"Idle server, {name}: statements", "1/s", len(statements) / wall)
            self._add(
                f"Idle server, {name}: its CPU", "% of a core", (server_now - server) / wall * 100
            )
            if idler.subject.database_pid is not None:
                cpu = (database_now - database) / wall * 100
                self._add(f"Idle server, {name}: database's CPU", "% of a core", cpu)
        for idler in self._idlers:
            name = idler.subject.database
            took, self._plans[name] = time_look(idler.subject)
            self._add(f"The reaper's query, {self._jobs:,} jobs, {name}", "µs", took)

    def _cpu(self, subject: Subject) -> tuple[float, float]:
        database = 0.0 if subject.database_pid is None else cpu_seconds(subject.database_pid)
        return cpu_seconds(subject.pid), database

    def _add(self, name: str, unit: str, value: float) -> None:
        self._figures.setdefault(name, Figure(name, unit)).add(value)


def _statements(idler: Idler, place: int) -> list[str]:
    with idler.trace.open("rb") as file:
        file.seek(place)
        lines = file.read().decode(errors="replace").splitlines()
    if idler.subject.database_pid is None:
        return lines
    # A logged statement has several lines: what is between two that begin one belongs to the first.
    statements: list[str] = []
    for line in lines:
        if found := _LOGGED.search(line):
            statements.append(found.group(1))
        elif statements:
            statements[-1] += " " + line.strip()
    return statements


def _kind(statement: str) -> str:
    for part, kind in _KINDS.items():
        if part in statement:
            return kind
    return f"`{statement[:40]}`"


def time_look(subject: Subject) -> tuple[float, str]:
    """Return the median of the query's microseconds, and how the database goes about it."""
    if subject.database_pid is None:
        return _time_on_sqlite(subject.url)
    return asyncio.run(_time_on_postgresql(subject.url))


def _time_on_sqlite(url: str) -> tuple[float, str]:
    """Time it as a connection of our own, all rows fetched."""
    compiled = _overdue(url).compile(dialect=sqlite.dialect())
    took = []
    file = url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        for _ in range(LOOKS):
            values = compiled.construct_params({"count": BATCH})
            bound = [values[name] for name in compiled.positiontup or ()]
            begin = time.perf_counter()
            due = connection.execute(str(compiled), bound).fetchall()
            took.append(time.perf_counter() - begin)
        plan = connection.execute(f"EXPLAIN QUERY PLAN {compiled}", bound).fetchall()
    _none(due)
    return statistics.median(took) * 1e6, "; ".join(step for *_, step in plan)


async def _time_on_postgresql(url: str) -> tuple[float, str]:
    """Have the database itself time it, as a connection of our own."""
    compiled = _overdue(url).compile(
        dialect=postgresql.dialect(),  # type: ignore[no-untyped-call]
        compile_kwargs={"literal_binds": True},
    )
    query = str(compiled)
    took = []
    connection = await asyncpg.connect(url, server_settings={"jit": "off"})
    try:
        for _ in range(LOOKS):
            (told,) = json.loads(
                await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}")
            )
            took.append(told["Execution Time"])
        _none(await connection.fetch(query))
    finally:
        await connection.close()
    return statistics.median(took) * 1000, _steps(told["Plan"])


def _steps(plan: dict[str, object]) -> str:
    """Return the plan's nodes, from the top, each with the index, the condition and the waste."""
    words = [str(plan["Node Type"])]
    told = ("Index Name", "Index Cond", "Filter", "Rows Removed by Filter")
    words += [f"{name.lower()} {plan[name]}" for name in told if name in plan]
    words.append(f"{plan['Shared Hit Blocks']} blocks hit, {plan['Shared Read Blocks']} read")
    below = plan.get("Plans", [])
    assert isinstance(below, list)
    return " > ".join([", ".join(words), *map(_steps, below)])


def _overdue(url: str) -> Select[tuple[int, str]]:
    """Return the very statement that the server executes."""
    database = open_database(parse_url(url))
    return Statements(database.dialect, database.writer.dialect).overdue


def _none(rows: Sequence[Any]) -> None:
    if due := [job_id for _, job_id in rows if job_id is not None]:
        raise BenchmarkError(f"{len(due)} jobs are due where none should be")
