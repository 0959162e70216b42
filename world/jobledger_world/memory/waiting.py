"""Which jobs wait, which of them go next, and what the limits of their keys are."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from jobledger_server.domain.job import Instant, JobId, Phase
from jobledger_server.domain.queues import KeyState, Queue, QueueName, next_queues, rule_name
from jobledger_server.domain.state_machine import due_time
from jobledger_server.store import Claimable
from jobledger_world.memory.rows import ACTIVE, SCHEDULED, Row, in_queue
from jobledger_world.memory.tables import Key, Rule, Tables


def claimable(row: Row) -> Claimable:
    """Return a job as one that may be claimed."""
    job = row.job
    texts = json.dumps(job.labels)
    message = job.last_error.message if job.last_error else ""
    size = job.parameters_bytes + job.checkpoint_bytes + len(texts) + 4 * len(message)
    return Claimable(job.id, job.job_type, size, job.priority, job.tenant)


def oldest_ready(tables: Tables, queue: QueueName, now: Instant) -> Sequence[Row]:
    """Return the ready jobs of a queue, oldest first, but for those that are overdue."""
    rows = tables.in_group(in_queue(queue, Phase.READY))
    due = [row for row in rows if row.deadline is not None and row.deadline > now]
    return sorted(due, key=lambda row: (row.job.create_time, row.job.id))


def due_jobs(tables: Tables, now: Instant) -> Sequence[JobId]:
    """Return the scheduled jobs whose time has come, the longest due first."""
    jobs = (row.job for row in tables.in_group(SCHEDULED))
    times = ((due_time(job), job.id) for job in jobs)
    return [job_id for _, job_id in sorted((at, id_) for at, id_ in times if at and at <= now)]


def overdue_jobs(tables: Tables, now: Instant) -> Sequence[JobId]:
    """Return the jobs whose deadline has passed, the longest overdue first."""
    deadlines = ((row.deadline, row.job.id) for row in tables.in_group(ACTIVE))
    return [id_ for _, id_ in sorted((at, id_) for at, id_ in deadlines if at and at <= now)]


def go_next(
    tables: Tables, limits: Mapping[str, int], now: Instant, *, limit: int
) -> list[Claimable]:
    """Return the ready jobs that go next. See `store.Store.find_claimable`."""
    ready: dict[QueueName, Iterable[Row]] = {}
    queues: list[Queue] = []
    for number, (name, queue) in enumerate(tables.queues.items()):
        is_claimable = name.job_type in limits and queue.phases[Phase.READY] > 0
        if is_claimable and (rows := oldest_ready(tables, name, now)):
            ready[name] = iter(rows)
            queues.append(Queue(name, number, queue.vtime, len(rows)))
    order = next_queues(queues, limits, limit=limit)
    return [claimable(row) for queue in order for row in islice(ready[queue.name], 1)]


def rules_of(tables: Tables, key: str) -> list[tuple[str, Rule]]:
    """Return the rules that hold for a key, by their names, its own first."""
    names = dict.fromkeys((key, rule_name(key)))
    return [(name, tables.rules[name]) for name in names if name in tables.rules]


def key_state(tables: Tables, key: str) -> KeyState:
    """Return the state of a concurrency key. Its own limit comes before that of its name."""
    rules = [rule for _, rule in rules_of(tables, key)]
    limits = [rule.max_running for rule in rules if rule.max_running is not None]
    return KeyState(
        tables.keys.get(key, Key()).running,
        limits[0] if limits else None,
        paused=any(rule.pause is not None for rule in rules),
    )
