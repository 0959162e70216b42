"""The rows that a database is filled with: each job by its number, as SQL on either database.

Half of the jobs belong to LARGE_OWNERS owners, the rest to as many as it takes for
SMALL_OWNERS_JOBS each. What is picked in turns goes by numbers that have no common
divisor, so that every owner has jobs of every status, type and project.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.load.messages import create_requests

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
