"""Counts the jobs of a database, and says where its counters or marks are something else."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from jobledger_server.domain.job import Phase
from jobledger_server.domain.queues import ENDED_STEP, KeyState, rule_name
from jobledger_server.sql.tables import IS_LEVEL, PHASES, tenant

Counts = Mapping[tuple[Any, ...], Sequence[int]]
"""The counts of each queue, level or key, but for those with none."""

_COUNTED = ", ".join(
    f"count(CASE WHEN phase = {phase:d} THEN 1 END)"  # count() of a NULL is 0
    for phase in Phase
)


async def wrong_counters(connection: AsyncConnection) -> list[str]:
    """Return what is wrong with the counters, in a snapshot; empty if nothing is.

    What they count is in domain/queues.py.
    """
    return [
        *await _levels(connection),
        *await _queues(connection),
        *await _keys(connection),
        *await _ended(connection),
    ]


async def _fetch(connection: AsyncConnection, statement: str) -> Sequence[Sequence[Any]]:
    return (await connection.execute(text(statement))).all()


async def _counts(connection: AsyncConnection, statement: str, width: int) -> Counts:
    """Return the rows of a statement by their first `width` values, but for rows of zeros."""
    rows = await _fetch(connection, statement)
    return {tuple(row[:width]): tuple(row[width:]) for row in rows if any(row[width:])}


def differences(name: str, counters: Counts, jobs: Counts) -> list[str]:
    """Return where counters are not what the jobs are."""
    return [
        f"{name} {key}: counted {counters.get(key)}, but there are {jobs.get(key)}"
        for key in sorted(counters.keys() | jobs.keys())
        if counters.get(key) != jobs.get(key)
    ]


async def _levels(connection: AsyncConnection) -> list[str]:
    level = "job_type, priority"
    stored = f"SELECT {level}, {', '.join(PHASES)} FROM queues WHERE {IS_LEVEL}"
    counted = f"SELECT {level}, {_COUNTED} FROM jobs WHERE phase IS NOT NULL GROUP BY {level}"
    return differences(
        "level",
        await _counts(connection, stored, 2),
        await _counts(connection, counted, 2),
    )


async def _queues(connection: AsyncConnection) -> list[str]:
    columns = f"job_type, priority, fairness_key, {', '.join(PHASES)}"
    stored = f"SELECT {columns} FROM queues WHERE NOT {IS_LEVEL}"
    counted = (
        f"SELECT job_type, priority, {tenant()} AS tenant, {_COUNTED} FROM jobs"
        " WHERE phase IS NOT NULL GROUP BY job_type, priority, tenant"
    )
    wrong = differences(
        "queue",
        await _counts(connection, stored, 3),
        await _counts(connection, counted, 3),
    )
    claimable = f"(CASE WHEN ready > 0 AND NOT {IS_LEVEL} THEN 1 ELSE 0 END)"
    rows = await _fetch(connection, f"SELECT id FROM queues WHERE claimable <> {claimable}")
    return [*wrong, *(f"claimable of queue {id_}" for (id_,) in rows)]


async def _keys(connection: AsyncConnection) -> list[str]:
    keyed = "FROM jobs WHERE concurrency_key <> '' AND phase IS NOT NULL GROUP BY concurrency_key"
    running, blocked, ready = (
        f"count(CASE WHEN phase = {phase:d} THEN 1 END)"
        for phase in (Phase.HELD, Phase.BLOCKED, Phase.READY)
    )
    counters = await _counts(connection, "SELECT key, running, blocked FROM limit_keys", 1)
    jobs = await _counts(connection, f"SELECT concurrency_key, {running}, {blocked} {keyed}", 1)
    wrong = differences("key", counters, jobs)
    marked = {
        key for (key,) in await _fetch(connection, "SELECT key FROM limit_keys WHERE recheck = 1")
    }
    rules = {
        name: (most, paused)
        for name, most, paused in await _fetch(
            connection, "SELECT name, max_running, pause_time IS NOT NULL FROM limit_rules"
        )
    }
    left = await _fetch(
        connection,
        f"SELECT concurrency_key, job_type, {blocked} {keyed}, job_type HAVING {ready} = 0",
    )
    for key, job_type, waiting in left:
        own, general = rules.get(key, (None, 0)), rules.get(rule_name(key), (None, 0))
        most = general[0] if own[0] is None else own[0]
        held = jobs.get((key,), (0, 0))[0]
        state = KeyState(held, most, bool(own[1] or general[1]))
        if waiting and state.free and key not in marked:
            wrong.append(f"key {key}: {waiting} blocked jobs of {job_type} have a free slot")
    return wrong


async def _ended(connection: AsyncConnection) -> list[str]:
    """Fewer jobs were counted than there are. Others were deleted since, or are too old."""
    step = f"complete_time / {ENDED_STEP} * {ENDED_STEP}"
    reason = "coalesce(error_reason, '')"
    stored = await _counts(connection, "SELECT job_type, time, status, reason, count FROM ended", 4)
    counted = await _counts(
        connection,
        f"SELECT job_type, {step} AS time, status, {reason} AS reason, count(*) FROM jobs"
        f" WHERE complete_time >= (SELECT min(time) FROM ended)"
        " GROUP BY job_type, time, status, reason",
        4,
    )
    return [
        f"ended {key}: counted {stored.get(key)}, but there are {jobs}"
        for key, jobs in counted.items()
        if sum(stored.get(key, ())) < sum(jobs)
    ]
