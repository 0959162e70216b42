"""What is true of the database between any two commits.

One function that tests, the checker of real servers, simulated runs and operators call. It reads
one snapshot, and may run beside serving.
"""

from collections.abc import Iterator, Mapping

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from jobledger_server.check.counters import wrong_counters
from jobledger_server.domain.job import JobStatus
from jobledger_server.domain.leases import CANCEL_GRACE
from jobledger_server.domain.limits import MAX_OUTPUT_STREAMS
from jobledger_server.domain.state_machine import VERSION_OF_START
from jobledger_server.sql.database import Database
from jobledger_server.sql.history import SEQ_COLUMNS
from jobledger_server.sql.rows import CHECKPOINT, PARAMETERS
from jobledger_server.sql.tables import ACTIVE, HELD, KEPT, tenant

SHOWN = 10
"""Rows at most that are named of those that break the same rule."""


async def violations(database: Database) -> list[str]:
    """Return what is wrong in the database, each in a line; empty if nothing is.

    Every sequence number of a job has its row in the feed, and every row of the feed is a change of
    its job. Payloads, attempts and assets have their job, which counts them. A group counts its
    jobs until it ends, which is when it is sealed and they have ended. No deadline is too late. A
    job that has not ended has the id of its queue. A stream of output has its job, no gap, and its
    attempts in their order. A webhook is held under a lease, and not if it is disabled. The
    counters of queues, levels and keys are what a recount says.

    Args:
        database: One without time limits if it is large.
    """
    engine = database.reader.execution_options(**database.dialect.snapshot)
    async with engine.connect() as connection, connection.begin():
        # One statement says which rules are broken: each statement is a round trip.
        broken = (await connection.execute(text(_BROKEN))).one()
        found = [
            line
            for (rule, statement), is_broken in zip(_RULES.items(), broken, strict=True)
            if is_broken
            for line in await _broken(connection, rule, statement)
        ]
        if database.dialect.name == "sqlite":
            # Each row is in its indexes, among other things.
            rows = await connection.execute(text(f"PRAGMA integrity_check({SHOWN})"))
            found += [f"SQLite: {line}" for (line,) in rows if line != "ok"]
        return [*found, *await wrong_counters(connection)]


async def _broken(connection: AsyncConnection, rule: str, statement: str) -> Iterator[str]:
    """Return a line for each row of the statement, which finds what breaks the rule."""
    rows = (await connection.execute(text(f"{statement} LIMIT {SHOWN}"))).mappings().all()
    return (
        f"{rule}: {', '.join(f'{name} {value}' for name, value in row.items())}" for row in rows
    )


def _orphans(table: str, condition: str = "") -> str:
    return (
        f"SELECT {table}.job_id FROM {table}"
        f" LEFT JOIN jobs ON jobs.id = {table}.job_id {condition} WHERE jobs.id IS NULL"
    )


def _payload(kind: int, counted: str) -> str:
    return (
        f"SELECT id, {counted}, length(content) AS stored FROM jobs LEFT JOIN payloads"
        f" ON job_id = id AND kind = {kind}"
        f" WHERE {KEPT} AND {counted} <> coalesce(length(content), 0)"
    )


# The row of a report has no owner: an owner's feed has the latest changes of held jobs by itself.
_REPORT = f" OR (changes.user_id IS NULL AND {HELD} AND change_seq > start_seq)"

_WITHIN = "OVER (PARTITION BY job_id, stream ORDER BY start)"

# The counts of Children are the first of its values, which ends with `sealed` and `cancelling`.
_COUNTS = " || ',' || ".join(
    f"count(CASE WHEN child.status = '{status.value}' THEN 1 END)" for status in JobStatus
)
_IS_OVER = "children LIKE '[0,0,%,true,false]' OR children LIKE '[0,0,%,true,true]'"

FEED_RULES: Mapping[str, str] = {
    **{
        f"{column} of a job has its row in the feed": (
            f"SELECT jobs.id, {column}, version FROM jobs LEFT JOIN changes"
            f" ON seq = {column} AND job_id = jobs.id AND (changes.user_id = jobs.user_id{report})"
            f" WHERE {column} IS NOT NULL AND seq IS NULL"
        )
        for column, report in zip(SEQ_COLUMNS, ("", _REPORT, ""), strict=True)
    },
    "a job's start comes before its later changes, and its deletion after them": (
        "SELECT id, start_seq, change_seq, delete_seq, version FROM jobs"
        " WHERE start_seq > change_seq OR delete_seq <= change_seq"
        f" OR (start_seq = change_seq) <> (version = {VERSION_OF_START} + updates)"
    ),
}
"""What is true of each job in the feed, with the statement for those of which it is not."""

UNKNOWN_CHANGES = (
    "SELECT seq, job_id FROM changes LEFT JOIN jobs"
    f" ON jobs.id = job_id AND seq IN ({', '.join(SEQ_COLUMNS)}) WHERE jobs.id IS NULL"
)
"""The statement for the rows of the feed that are no change of their job."""

_RULES: Mapping[str, str] = {
    **FEED_RULES,
    "a row of the feed is a change of its job": UNKNOWN_CHANGES,
    "a deadline is not later than what it stands for": (
        f"SELECT id, deadline FROM jobs WHERE {ACTIVE} AND (deadline > queue_expire_time"
        " OR deadline > lease_expire_time OR deadline > stall_expire_time"
        " OR deadline > run_expire_time"
        f" OR (children IS NULL AND deadline > cancel_request_time + {CANCEL_GRACE}))"
    ),
    "a job has the id of its queue": (
        "SELECT jobs.id, queue_id, queues.id AS queue FROM jobs LEFT JOIN queues"
        " ON queues.job_type = jobs.job_type AND queues.priority = jobs.priority"
        f" AND queues.fairness_key = {tenant()}"
        " WHERE phase IS NOT NULL AND (queues.id IS NULL OR queues.id <> queue_id)"
    ),
    "a payload has its job": _orphans("payloads", f"AND {KEPT}"),
    "a job knows the bytes of its parameters": _payload(PARAMETERS, "parameters_bytes"),
    "a job knows the bytes of its checkpoint": _payload(CHECKPOINT, "checkpoint_bytes"),
    "an attempt has its job": _orphans("attempts", "AND number <= attempt"),
    "every attempt but the last has ended": (
        "SELECT id, attempt, (SELECT count(*) FROM attempts WHERE job_id = id) AS ended FROM jobs"
        " WHERE attempt - 1 > (SELECT count(*) FROM attempts WHERE job_id = id)"
    ),
    "an asset has its job": _orphans("assets"),
    "a job counts its assets": (
        "SELECT id, asset_count, (SELECT count(*) FROM assets WHERE job_id = jobs.id) AS assets"
        " FROM jobs"
        " WHERE asset_count <> (SELECT count(*) FROM assets WHERE job_id = jobs.id)"
    ),
    "a job is in a group of its owner": (
        "SELECT child.id, child.group_id FROM jobs AS child LEFT JOIN jobs AS parent"
        " ON parent.id = child.group_id AND parent.user_id = child.user_id"
        " AND parent.children IS NOT NULL AND parent.delete_seq IS NULL"
        " WHERE child.group_id IS NOT NULL AND child.delete_seq IS NULL AND parent.id IS NULL"
    ),
    "a group that has not ended counts its jobs": (
        "SELECT parent.id, parent.children FROM jobs AS parent"
        " LEFT JOIN jobs AS child ON child.group_id = parent.id AND child.delete_seq IS NULL"
        " WHERE parent.children IS NOT NULL AND parent.complete_time IS NULL"
        " GROUP BY parent.id, parent.children"
        f" HAVING parent.children NOT LIKE '[' || {_COUNTS} || ',%'"
    ),
    "a job of a group that has ended has ended": (
        "SELECT child.id, child.group_id FROM jobs AS child JOIN jobs AS parent"
        " ON parent.id = child.group_id"
        " WHERE child.complete_time IS NULL AND parent.complete_time IS NOT NULL"
    ),
    "a group has ended if it is sealed and its jobs have ended, and not before": (
        "SELECT id, status, children FROM jobs WHERE children IS NOT NULL"
        f" AND (complete_time IS NOT NULL) <> ({_IS_OVER})"
    ),
    "output has its job, which names the stream": (
        f"SELECT job_id, stream FROM outputs LEFT JOIN jobs ON jobs.id = job_id AND {KEPT}"
        " GROUP BY job_id, stream, output_streams HAVING output_streams IS NULL"
        " OR output_streams NOT LIKE '%\"' || stream || '\": \"%'"
    ),
    "output is of an attempt of its job": (
        "SELECT job_id, stream, outputs.attempt, jobs.attempt AS newest FROM outputs"
        " JOIN jobs ON jobs.id = job_id WHERE outputs.attempt > jobs.attempt"
    ),
    "output has no gap, and later attempts and numbers after earlier ones": (
        "SELECT job_id, stream, start FROM (SELECT job_id, stream, start, attempt, number,"
        f" lag(start + length(data)) {_WITHIN} AS expected, lag(attempt) {_WITHIN} AS earlier,"
        f" lag(number) {_WITHIN} AS last FROM outputs) AS pieces"
        " WHERE start <> expected OR attempt < earlier OR (attempt = earlier AND number < last)"
    ),
    f"a job has {MAX_OUTPUT_STREAMS} streams of output at most": (
        "SELECT job_id, count(DISTINCT stream) AS streams FROM outputs GROUP BY job_id"
        f" HAVING count(DISTINCT stream) > {MAX_OUTPUT_STREAMS}"
    ),
    "a webhook has a lease if somebody holds it, who has claimed it": (
        "SELECT id, holder, lease_expire_time, generation FROM webhooks"
        " WHERE (holder = '') <> (lease_expire_time = 0) OR (holder <> '' AND generation = 0)"
    ),
    "a disabled webhook has a reason, and nobody holds it": (
        "SELECT id, holder, disable_time, disable_reason FROM webhooks"
        " WHERE (disable_time IS NULL) <> (disable_reason = '')"
        " OR (disable_time IS NOT NULL AND holder <> '')"
    ),
    "a webhook counts its pending deliveries": (
        "SELECT id, pending_count, length(pending) AS bytes FROM webhooks"
        " WHERE (pending_count = 0) <> (length(pending) = 0)"
    ),
    "a webhook's previous secret has an end": (
        "SELECT id, previous_secret_expire_time FROM webhooks"
        " WHERE (previous_secret = '') <> (previous_secret_expire_time IS NULL)"
    ),
}
"""Each rule, with the statement for the rows that break it."""

_BROKEN = f"SELECT {', '.join(f'EXISTS ({statement})' for statement in _RULES.values())}"
