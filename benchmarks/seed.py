"""Fills a database by plain SQL before a server uses it: jobs as they are after some time.

Everything about a job follows from its number, which counts from 1 in the order of creation. Half
of the jobs belong to LARGE_OWNERS owners, the rest to as many as it takes for SMALL_OWNERS_JOBS
each. Turns go by numbers without a common divisor, so that every owner has jobs of every status,
type and project. Indexes and references are dropped meanwhile and made again at the end: to index
all rows at once takes a fraction of the time.
"""

import asyncio
import json
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Hashable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field

import asyncpg

from benchmarks.load.messages import create_requests
from benchmarks.processes import BenchmarkError
from benchmarks.targets import Database

LARGE_OWNERS = 20

SMALL_OWNERS_JOBS = 250

PROJECTS = 11

_HOUR = 3600 * 1_000_000
_WEEK = 7 * 24 * _HOUR

_ENDED = ("COMPLETED", "PARTIAL", "FAILED")


@dataclass(frozen=True)
class Dialect:
    """What the two databases write differently."""

    numbers: str
    hexadecimal: str
    json: str
    blob: str


SQLITE = Dialect(
    numbers="(WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL "
    "SELECT n + 1 FROM numbers WHERE n < {until}) SELECT n FROM numbers)",
    hexadecimal="printf('%0{width}x', {number})",
    json="{text}",
    blob="X'{digits}'",
)
POSTGRESQL = Dialect(
    numbers="generate_series({first}::bigint, {until}::bigint) AS numbers(n)",
    hexadecimal="lpad(to_hex({number}), {width}, '0')",
    json="({text})::json",
    blob="'\\x{digits}'::bytea",
)


class Rows:
    """So many jobs of each status, their steps, and an asset of each that is COMPLETED.

    `now` is the time of filling in microseconds. All jobs are a millisecond apart
    in `id` and `create_time`, the newest made just then. What is active is so for
    at least an hour more.
    """

    def __init__(self, counts: Mapping[str, int], job_types: Sequence[str], *, now: int) -> None:
        self.now = now
        self.jobs = sum(counts.values())
        self.ended = sum(counts.get(status, 0) for status in _ENDED)
        self.running = counts.get("PROCESSING", 0)
        self.waiting = counts.get("QUEUED", 0)
        self.job_types = job_types
        self.small_owners = max(1, self.jobs // 2 // SMALL_OWNERS_JOBS)
        # A step takes a place in the feed: two of each job, as if it began and ended at once.
        self.last_place = 2 * self.jobs
        self._counts = counts

    def insertions(self, dialect: Dialect, first: int, until: int) -> Iterator[str]:
        """Yield the statements that insert all that belongs to the jobs from `first` to `until`."""
        request = next(create_requests())
        numbers = dialect.numbers.format(first=first, until=until)
        labels = json.dumps({**request.labels, "project": "PROJECT"})
        labels = "'" + labels.replace("PROJECT", f"project-' || (n % {PROJECTS}) || '") + "'"
        values = {
            "now": self.now,
            "millisecond": self._millisecond,
            "id": _id_sql(dialect, self._millisecond, "7000"),
            "asset_id": _id_sql(dialect, self._millisecond, "7001"),
            # As random as the client's, so that new ones fall in between.
            "request_id": _id_sql(dialect, "n * 2654435761 % 281474976710656", "4000"),
            "owner": f"CASE n % 2 WHEN 1 THEN 'large-' || (n / 2 % {LARGE_OWNERS})"
            f" ELSE 'small-' || (n / 2 % {self.small_owners}) END",
            "job_type": _in_turn(self.job_types),
            "parameters": dialect.blob.format(digits=request.parameters.SerializeToString().hex()),
            "labels": dialect.json.format(text=labels),
            "status": f"(SELECT n, {self._status} AS status FROM {numbers}) AS numbered",
        }
        for template in (_JOBS, _STARTS, _ENDS, _ASSETS):
            yield template.format(**values)

    @property
    def _millisecond(self) -> str:
        return f"({self.now // 1000 - self.jobs} + n)"

    @property
    def _status(self) -> str:
        """The status of job `n`: the ended ones are mixed, as they would be after some time."""
        cases = [
            (f"n > {self.ended + self.running}", "QUEUED"),
            (f"n > {self.ended}", "PROCESSING"),
        ]
        share = 0
        for status in _ENDED[:-1]:
            share += round(self._counts.get(status, 0) / max(1, self.ended) * 997)
            cases.append((f"n * 617 % 997 < {share}", status))
        whens = " ".join(f"WHEN {condition} THEN '{status}'" for condition, status in cases)
        return f"CASE {whens} ELSE '{_ENDED[-1]}' END"


def job_id(rows: Rows, number: int) -> str:
    """Return the id of a job, as the SQL makes it."""
    millis = rows.now // 1000 - rows.jobs + number
    return f"{millis >> 16:08x}-{millis & 0xFFFF:04x}-7000-8000-{number:012x}"


def owner(rows: Rows, number: int) -> str:
    """Return the owner of a job, as the SQL names it: every second job is a large owner's."""
    if number % 2:
        return f"large-{number // 2 % LARGE_OWNERS}"
    return f"small-{number // 2 % rows.small_owners}"


def job_type(rows: Rows, number: int) -> str:
    """Return the type of a job, as the SQL gives it."""
    return rows.job_types[number % len(rows.job_types)]


def _id_sql(dialect: Dialect, head: str, version: str) -> str:
    """Return an id that begins with a number of 48 bits, and ends with `n`."""

    def digits(number: str, width: int) -> str:
        return dialect.hexadecimal.format(number=number, width=width)

    return (
        f"{digits(f'({head}) >> 16', 8)} || '-' || {digits(f'({head}) & 65535', 4)}"
        f" || '-{version}-8000-' || {digits('n', 12)}"
    )


def _in_turn(values: Sequence[str]) -> str:
    whens = " ".join(f"WHEN {turn} THEN '{value}'" for turn, value in enumerate(values))
    return f"CASE n % {len(values)} {whens} END"


_JOBS = f"""
INSERT INTO jobs (
  id, user_id, job_type, status, progress, progress_message, parameters,
  error_reason, error_message, labels, attempt, max_attempts, releases, worker_id, request_id,
  create_time, start_time, update_time, complete_time, lease_duration, lease_expire_time,
  queue_timeout, queue_expire_time, cancel_reason, deadline, version, change_seq)
SELECT {{id}}, {{owner}}, {{job_type}}, status,
  CASE status WHEN 'QUEUED' THEN 0 WHEN 'PROCESSING' THEN 40 WHEN 'FAILED' THEN 40 ELSE 100 END,
  '', {{parameters}},
  CASE status WHEN 'FAILED' THEN 'UNKNOWN' END, CASE status WHEN 'FAILED' THEN 'UNKNOWN' END,
  {{labels}}, CASE status WHEN 'QUEUED' THEN 0 ELSE 1 END, 1, 0,
  CASE status WHEN 'QUEUED' THEN '' ELSE 'worker-1' END, {{request_id}},
  {{millisecond}} * 1000, CASE WHEN status <> 'QUEUED' THEN {{now}} END, {{now}},
  CASE WHEN status NOT IN ('QUEUED', 'PROCESSING') THEN {{now}} END,
  CASE WHEN status <> 'QUEUED' THEN {_HOUR} END,
  CASE status WHEN 'PROCESSING' THEN {{now}} + {_HOUR} + n * 1000 END,
  {_WEEK}, CASE status WHEN 'QUEUED' THEN {{now}} + {_WEEK} END, '',
  CASE status WHEN 'PROCESSING' THEN {{now}} + {_HOUR} + n * 1000
    WHEN 'QUEUED' THEN {{now}} + {_WEEK} END,
  CASE status WHEN 'QUEUED' THEN 1 WHEN 'PROCESSING' THEN 2 ELSE 3 END, 2 * n
FROM {{status}}
"""

_STEPS = """
INSERT INTO job_transitions (
  job_id, version, from_status, to_status, attempt, actor, reason, time, change_seq,
  progress, progress_message, worker_id, lease_expire_time)
"""

_STARTS = f"""{_STEPS}
SELECT {{id}}, 2, 'QUEUED', 'PROCESSING', 1, 'worker-1', '', {{now}},
  CASE status WHEN 'PROCESSING' THEN 2 * n ELSE 2 * n - 1 END,
  0, '', 'worker-1', {{now}} + {_HOUR}
FROM {{status}} WHERE status <> 'QUEUED'
"""

_ENDS = f"""{_STEPS}
SELECT {{id}}, 3, 'PROCESSING', status, 1, 'worker-1',
  CASE status WHEN 'FAILED' THEN 'UNKNOWN' ELSE '' END, {{now}}, 2 * n,
  CASE status WHEN 'FAILED' THEN 40 ELSE 100 END, '', 'worker-1', NULL
FROM {{status}} WHERE status NOT IN ('QUEUED', 'PROCESSING')
"""

_ASSETS = """
INSERT INTO assets (
  id, job_id, user_id, asset_type, url, storage_path, file_size, create_time, request_id)
SELECT {asset_id}, {id}, {owner}, 'image', 'https://assets.example/' || n || '.png', '',
  1000000 + n, {now}, {request_id}
FROM {status} WHERE status = 'COMPLETED'
"""

CHUNK = 20_000
"""Jobs whose rows are written together, so that the transitions of a job are near each other."""

SHARES = {"COMPLETED": 0.90, "PARTIAL": 0.03}


Job = tuple[str, str, str]
"""Its id, its owner and its type."""


@dataclass(frozen=True)
class Filled:
    """A database with its jobs, and how many seconds it took to make them."""

    database: Database
    rows: Rows
    seconds: float
    _random: random.Random = field(default_factory=lambda: random.Random(5))

    def pick(self, which: str) -> Job:
        """Pick a job at random: any, a large owner's, a small owner's, or a running one."""
        rows = self.rows
        match which:
            case "large":
                number = self._random.randrange(1, rows.jobs + 1, 2)
            case "small":
                number = self._random.randrange(2, rows.jobs + 1, 2)
            case "running":
                number = rows.ended + self._random.randint(1, rows.running)
            case _:
                number = self._random.randint(1, rows.jobs)
        return job_id(rows, number), owner(rows, number), job_type(rows, number)


def fill(database: Database, jobs: int, *job_types: str) -> Filled:
    """Make so many jobs, their types in turn. Raises BenchmarkError.

    1 % is active and the newest, half of it running; of the others most are COMPLETED.
    """
    counts = {status: int(jobs * share) for status, share in SHARES.items()}
    counts |= {"PROCESSING": jobs // 200, "QUEUED": jobs // 200}
    counts["FAILED"] = jobs - sum(counts.values())
    begin = time.monotonic()
    rows = Rows(counts, job_types, now=time.time_ns() // 1000)
    if database.pid is None:
        _fill_sqlite(database.file, rows)
    else:
        asyncio.run(_fill_postgresql(database.url, rows))
    return Filled(database, rows, time.monotonic() - begin)


def _fill_sqlite(file: str, rows: Rows) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        # Of this connection alone. If it fails the file is of no use.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-1000000", "threads=2"):
            connection.execute(f"PRAGMA {pragma}")
        with without_indexes_on_sqlite(connection):
            connection.execute("BEGIN")
            for statement in _statements(rows, SQLITE):
                connection.execute(statement)
            connection.execute("COMMIT")
        # No ANALYZE: the server never does that either.
        connection.execute("PRAGMA journal_mode=WAL")


async def _fill_postgresql(url: str, rows: Rows) -> None:
    connection = await asyncpg.connect(url)
    try:
        # Of this connection alone.
        await connection.execute("SET synchronous_commit = off")
        await connection.execute("SET maintenance_work_mem = '1GB'")
        async with without_indexes(connection):
            for statement in _statements(rows, POSTGRESQL):
                await connection.execute(statement)
        await connection.execute("VACUUM (ANALYZE)")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


def _statements(rows: Rows, dialect: Dialect) -> Iterator[str]:
    for first in range(1, rows.jobs + 1, CHUNK):
        yield from rows.insertions(dialect, first, min(first + CHUNK - 1, rows.jobs))
    yield f"UPDATE feed SET seq = {rows.last_place}"


# In the order in which they were made: where two plans cost the same, it decides.
_SQLITE_SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY tbl_name, rowid"

_KEYS = """
SELECT conrelid::regclass::text AS at, conname AS name, contype::text AS kind,
  pg_get_constraintdef(oid) AS definition
FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype IN ('p', 'f')
ORDER BY contype, oid
"""

_INDEXES = """
SELECT indrelid::regclass::text AS at, indexrelid::regclass::text AS name,
  pg_get_indexdef(indexrelid) AS definition
FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE relnamespace = 'public'::regnamespace ORDER BY indrelid, indexrelid
"""

_CONSTRAINTS = """
SELECT conrelid::regclass::text, conname, contype::text, convalidated, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2
"""


@contextmanager
def without_indexes_on_sqlite(connection: sqlite3.Connection) -> Iterator[None]:
    """Have no index and no trigger in the block. Raises BenchmarkError where one comes back other.

    An index that a primary key brings stays: it cannot be taken off.
    """
    before = connection.execute(_SQLITE_SCHEMA).fetchall()
    taken = [row for row in before if row[0] in {"index", "trigger"} and row[-1] is not None]
    for kind, name, *_ in taken:
        connection.execute(f"DROP {kind} {name}")
    yield
    for *_, definition in taken:
        connection.execute(definition)
    _compare(before, connection.execute(_SQLITE_SCHEMA).fetchall())


@asynccontextmanager
async def without_indexes(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Have no index and no reference in the block, on PostgreSQL.

    Raises BenchmarkError where one comes back other than it was.
    """
    before = await _schema(connection)
    keys = await connection.fetch(_KEYS)
    names = {key["name"] for key in keys}
    indexes = [row for row in await connection.fetch(_INDEXES) if row["name"] not in names]
    for key in keys:  # the references first: they need the keys
        await connection.execute(f"ALTER TABLE {key['at']} DROP CONSTRAINT {key['name']}")
    for index in indexes:
        await connection.execute(f"DROP INDEX {index['name']}")
    yield
    await _add(connection, [key for key in keys if key["kind"] == "p"])
    for index in indexes:
        await connection.execute(index["definition"])
    await _add(connection, [key for key in keys if key["kind"] == "f"])
    _compare(before, await _schema(connection))


async def _add(connection: asyncpg.Connection, keys: list[asyncpg.Record]) -> None:
    for key in keys:
        await connection.execute(
            f"ALTER TABLE {key['at']} ADD CONSTRAINT {key['name']} {key['definition']}"
        )


async def _schema(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    return await connection.fetch(_INDEXES) + await connection.fetch(_CONSTRAINTS)


def _compare(before: Sequence[Hashable], after: Sequence[Hashable]) -> None:
    if changed := set(before) ^ set(after):
        raise BenchmarkError(f"the schema is not what it was: {changed}")
    if before != after:
        raise BenchmarkError("the indexes are not in the order that they were in")
