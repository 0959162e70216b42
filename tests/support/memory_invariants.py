"""What is true of the store in memory between any two commits.

As `check.invariants` says it of a real database. Its feed is made from its rows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise

from jobledger_server.check.counters import Counts, differences
from jobledger_server.domain.job import JobId, JobStatus, Phase
from jobledger_server.domain.leases import deadline
from jobledger_server.domain.limits import MAX_OUTPUT_STREAMS
from jobledger_server.domain.queues import ENDED_STEP, queue_name
from jobledger_world.memory.rows import ACTIVE, KEPT, Row
from jobledger_world.memory.tables import HeldWebhook, Tables
from jobledger_world.memory.waiting import key_state


def violations(tables: Tables) -> list[str]:
    """Return what is wrong, each in a line; empty if nothing is."""
    jobs = [(row.job, row.job.phase) for row in tables.in_group(ACTIVE)]
    levels = Counter(((job.job_type, job.priority), phase) for job, phase in jobs)
    queues = Counter((queue_name(job), phase) for job, phase in jobs)
    keys = Counter(((job.concurrency_key,), phase) for job, phase in jobs if job.concurrency_key)
    counters = (
        ("level", {name: each.phases for name, each in tables.levels.items()}, levels, Phase),
        ("queue", {name: each.phases for name, each in tables.queues.items()}, queues, Phase),
        (
            "key",
            {(name,): (each.running, each.blocked) for name, each in tables.keys.items()},
            keys,
            (Phase.HELD, Phase.BLOCKED),
        ),
    )
    return [
        *(
            f"job {row.job.id}: {rule}"
            for row in tables.rows.values()
            for rule, holds in _rules(row).items()
            if not holds
        ),
        *(
            difference
            for what, stored, counted, phases in counters
            for difference in differences(what, _some(stored), _by_name(counted, phases))
        ),
        *(
            f"webhook {row.webhook.id}: {rule}"
            for row in tables.webhooks.values()
            for rule, holds in _webhook_rules(row).items()
            if not holds
        ),
        *_groups(tables),
        *_output(tables),
        *_forgotten(tables),
        *_ended(tables),
    ]


def _rules(row: Row) -> dict[str, bool]:
    """Return what is to be true of a row, and whether it is."""
    job, soonest = row.job, deadline(row.job)
    payloads = row.payloads if row.deletion is None else None
    return {
        "its start comes before its later changes, and its deletion after them": (
            (row.start is None or row.start.seq <= row.seq)
            and (row.deletion is None or row.deletion.seq > row.seq)
        ),
        "its deadline is not later than what it stands for": soonest is None
        or (row.deadline is not None and row.deadline <= soonest),
        "it knows the bytes of its payloads": payloads is None
        or (job.parameters_bytes, job.checkpoint_bytes)
        == (len(payloads.parameters or b""), len(payloads.checkpoint or b"")),
        "every attempt but the last has ended": len(row.attempts) >= job.attempt - 1,
        "it counts its assets": job.asset_count == len(row.assets),
    }


def _webhook_rules(row: HeldWebhook) -> dict[str, bool]:
    webhook, held = row.webhook, bool(row.holder)
    disabled = webhook.disable_time is not None
    return {
        "it has a lease if somebody holds it, who has claimed it": held
        is bool(row.lease_expire_time)
        and (not held or webhook.generation > 0),
        "if it is disabled it has a reason, and nobody holds it": disabled
        is bool(webhook.disable_reason)
        and not (disabled and held),
        "it counts its pending deliveries": bool(webhook.pending_count) is bool(webhook.pending),
        "its previous secret has an end": bool(webhook.previous_secret)
        is (webhook.previous_secret_expire_time is not None),
    }


def _groups(tables: Tables) -> Iterator[str]:
    """Yield what is wrong with groups and with what belongs to them."""
    children: dict[JobId, Counter[str]] = {}
    for row in tables.in_group(KEPT):
        group_id = row.job.group_id
        if group_id is not None:
            children.setdefault(group_id, Counter())[row.job.status.value.lower()] += 1
            group = tables.kept(group_id)
            if group is None or group.job.children is None or group.job.user_id != row.job.user_id:
                yield f"job {row.job.id}: it is in a group of its owner"
    for row in tables.in_group(KEPT):
        counted, ended = row.job.children, row.job.complete_time is not None
        if counted is None:
            continue
        found = children.get(row.job.id, Counter())
        if not ended and any(
            getattr(counted, status.value.lower()) != found[status.value.lower()]
            for status in JobStatus
        ):
            yield f"group {row.job.id}: it counts its jobs, {counted} and not {found}"
        # Of one that has ended some may be deleted already.
        if any(getattr(counted, state) < count for state, count in found.items()):
            yield f"group {row.job.id}: it counts {counted}, and has {found}"
        if ended is not (counted.sealed and not counted.open):
            yield f"group {row.job.id}: it has ended if it is sealed and its jobs have ended"


def _output(tables: Tables) -> Iterator[str]:
    """Yield what is wrong with output."""
    streams = Counter(job_id for job_id, _ in tables.outputs)
    for job_id, count in streams.items():
        if count > MAX_OUTPUT_STREAMS:
            yield f"job {job_id}: it has {count} streams of output"
    for (job_id, stream), pieces in tables.outputs.items():
        where, row = f"output {stream!r} of job {job_id}", tables.kept(job_id)
        if row is None:
            yield f"{where}: it has its job"
        elif stream not in row.job.output_streams:
            yield f"{where}: its job names it"
        elif any(piece.attempt > row.job.attempt for piece in pieces):
            yield f"{where}: it is of an attempt that was made"
        for piece, after in pairwise(pieces):
            if after.start != piece.end:
                yield f"{where}: there is no gap before {after.start}"
            if piece.attempt > after.attempt:
                yield f"{where}: the attempts come in their order at {after.start}"
            if piece.attempt == after.attempt and piece.number > after.number:
                yield f"{where}: the numbers of an attempt increase at {after.start}"
    for row in tables.rows.values():
        for stream in row.job.output_streams if row.deletion is None else ():
            if not tables.outputs.get((row.job.id, stream)):
                yield f"job {row.job.id}: something is stored of its stream {stream!r}"


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
