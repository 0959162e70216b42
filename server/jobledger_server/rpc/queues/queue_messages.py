"""Converts counts, limits, defaults and reasons to messages."""

from collections.abc import Sequence
from typing import assert_never

from jobledger.v1 import queue_service_pb2 as pb
from jobledger_server.domain.job import Instant
from jobledger_server.domain.type_defaults import TypeDefaults
from jobledger_server.domain.waiting import (
    KeyPaused,
    LimitReached,
    NotDue,
    NoWorker,
    OpenGroup,
    Pause,
    Queued,
    TypePaused,
    WaitReason,
)
from jobledger_server.queue_store import EndedCount, Limit, PhaseCounts, TypeStats
from jobledger_server.rpc.messages import STATUSES, time_message


def pause_message(pause: Pause, *, actor: bool = True) -> pb.Pause:
    """Make the message of a pause, with its actor unless the caller is not told."""
    return pb.Pause(
        pause_time=time_message(pause.time),
        actor=pause.actor if actor else "",
        reason=pause.reason,
    )


def limit_message(limit: Limit) -> pb.ConcurrencyLimit:
    return pb.ConcurrencyLimit(
        name=limit.name,
        max_running=limit.max_running,
        running=limit.running,
        blocked=limit.blocked,
        pause=None if limit.pause is None else pause_message(limit.pause),
    )


def type_message(named: tuple[str, TypeDefaults]) -> pb.JobType:
    """Make the message of a type with its defaults."""
    job_type, defaults = named
    message = pb.JobType(job_type=job_type)
    if defaults.max_attempts is not None:
        policy = message.defaults.retry_policy
        policy.max_attempts = defaults.max_attempts
        policy.initial_backoff.FromMicroseconds(defaults.initial_backoff or 0)
        policy.max_backoff.FromMicroseconds(defaults.max_backoff or 0)
        policy.backoff_multiplier = defaults.backoff_multiplier or 0
    for field, span in (
        ("queue_timeout", defaults.queue_timeout),
        ("run_timeout", defaults.run_timeout),
        ("stall_timeout", defaults.stall_timeout),
        ("retention", defaults.retention),
    ):
        if span is not None:
            getattr(message.defaults, field).FromMicroseconds(span)
    if defaults.priority is not None:
        message.defaults.priority = defaults.priority
    return message


def stats_message(stats: TypeStats, now: Instant) -> pb.JobTypeStats:
    """Make the message of a type's counts, which were read at this time."""
    total = stats.total
    message = pb.JobTypeStats(
        job_type=stats.job_type,
        ready=total.ready,
        blocked=total.blocked,
        scheduled=total.scheduled,
        held=total.held,
        waiting=total.waiting,
        polled=stats.polled,
        ended_last_minute=_ended(stats.ended_last_minute),
        ended_last_hour=_ended(stats.ended_last_hour),
        priorities=[_priority(*each) for each in stats.priorities.items()],
        pause=None if stats.pause is None else pause_message(stats.pause),
    )
    if stats.oldest is not None:
        message.oldest_wait.FromMicroseconds(max(0, now - stats.oldest))
    return message


def reason_message(reason: WaitReason, *, actor: bool) -> pb.WaitReason:
    """Make the message of a reason, with who paused unless the caller is not told."""
    message = pb.WaitReason
    match reason:
        case NoWorker(job_type):
            return message(no_worker=message.NoWorker(job_type=job_type))
        case TypePaused(job_type, pause):
            paused = message.Paused(job_type=job_type, pause=pause_message(pause, actor=actor))
            return message(paused=paused)
        case KeyPaused(key, pause):
            paused = message.Paused(concurrency_key=key, pause=pause_message(pause, actor=actor))
            return message(paused=paused)
        case LimitReached(key, running, most, holders):
            limit = message.ConcurrencyLimit(
                concurrency_key=key, running=running, max_running=most, holder_job_ids=holders
            )
            return message(concurrency_limit=limit)
        case NotDue(time):
            return message(scheduled=message.Scheduled(schedule_time=time_message(time)))
        case Queued(ahead, capped, higher_priority, tenants):
            queued = message.Queued(
                ahead=ahead, capped=capped, higher_priority=higher_priority, tenants=tenants
            )
            return message(queued=queued)
        case OpenGroup(count, sealed):
            return message(group=message.Group(open=count, sealed=sealed))
        case _:
            assert_never(reason)


def _priority(priority: int, counts: PhaseCounts) -> pb.PriorityStats:
    return pb.PriorityStats(
        priority=priority,
        ready=counts.ready,
        blocked=counts.blocked,
        scheduled=counts.scheduled,
        held=counts.held,
        waiting=counts.waiting,
    )


def _ended(counts: Sequence[EndedCount]) -> Sequence[pb.EndedJobs]:
    return [
        pb.EndedJobs(status=STATUSES[each.status], reason=each.reason, count=each.count)
        for each in counts
    ]
