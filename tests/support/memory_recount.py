"""Counts the jobs of the store in memory, and tells where its counters or marks say otherwise.

As `recount` does it for a real database.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

from jobledger.testing.world.memory.rows import ACTIVE, KEPT
from jobledger.testing.world.memory.tables import Tables
from jobledger.testing.world.memory.waiting import key_state
from jobledger_server.domain.job import Phase
from jobledger_server.domain.queues import ENDED_STEP, queue_id
from tests.support.recount import Counts, differences


def recount(tables: Tables) -> list[str]:
    """Return what is wrong with the counters; empty if nothing is."""
    jobs = [(row.job, row.job.phase) for row in tables.in_group(ACTIVE)]
    levels = Counter(((job.job_type, job.priority), phase) for job, phase in jobs)
    queues = Counter(((queue_id(job),), phase) for job, phase in jobs)
    keys = Counter(((job.concurrency_key,), phase) for job, phase in jobs if job.concurrency_key)
    counters = (
        ("level", {name: each.phases for name, each in tables.levels.items()}, levels, Phase),
        ("queue", {(id_,): each.phases for id_, each in tables.queues.items()}, queues, Phase),
        (
            "key",
            {(name,): (each.running, each.blocked) for name, each in tables.keys.items()},
            keys,
            (Phase.HELD, Phase.BLOCKED),
        ),
    )
    return [
        *(
            difference
            for what, stored, counted, phases in counters
            for difference in differences(what, _some(stored), _by_name(counted, phases))
        ),
        *_forgotten(tables),
        *_ended(tables),
    ]


def _by_name(
    counted: Counter[tuple[tuple[object, ...], Phase | None]], phases: Iterable[Phase]
) -> Counts:
    return _some({name: [counted[name, phase] for phase in phases] for name, _ in counted})


def _some(counts: Counts) -> Counts:
    """Return the counts but for those of nothing."""
    return {name: tuple(numbers) for name, numbers in counts.items() if any(numbers)}


def _forgotten(tables: Tables) -> Iterator[str]:
    """Yield the keys with blocked jobs, a free slot and nobody who looks."""
    waiting: Counter[tuple[str, str, Phase | None]] = Counter(
        (row.job.concurrency_key, row.job.job_type, row.job.phase)
        for row in tables.in_group(ACTIVE)
    )
    for (key, job_type, phase), count in waiting.items():
        if (
            phase is Phase.BLOCKED
            and not waiting[key, job_type, Phase.READY]
            and key_state(tables, key).free
            and not tables.keys[key].recheck
        ):
            yield f"key {key}: {count} blocked jobs of {job_type} have a free slot"


def _ended(tables: Tables) -> Iterator[str]:
    """Yield where fewer jobs were counted than there are; others were deleted since."""
    first = min((time for _, time, *_ in tables.ended), default=0)
    ended = (row.job for row in tables.in_group(KEPT) if (row.job.complete_time or 0) >= first > 0)
    jobs = Counter(
        (
            job.job_type,
            (job.complete_time or 0) // ENDED_STEP * ENDED_STEP,
            job.status,
            "" if job.error is None else job.error.reason,
        )
        for job in ended
    )
    for key, count in jobs.items():
        if tables.ended[key] < count:
            yield f"ended {key}: counted {tables.ended[key]}, but there are {count}"
