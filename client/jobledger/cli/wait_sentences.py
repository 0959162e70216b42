"""Why a job waits, as sentences for people."""

from collections.abc import Iterator
from datetime import UTC, datetime

from jobledger import (
    Explanation,
    KeyPaused,
    LimitReached,
    NoWorker,
    Pause,
    Queued,
    Scheduled,
    TypePaused,
    WaitReason,
    WaitsForItsJobs,
)
from jobledger.cli.render import clean, jobs, time_text
from jobledger.cli.times import clock

# A count of the service that goes no further.
_MANY = 1000


def explanation_lines(explanation: Explanation) -> Iterator[str]:
    """Yield a line for each reason, and for each job that holds a limit; at least one line."""
    job = explanation.job
    if not explanation.reasons:
        yield "it does not wait: " + (
            f"it is {job.status}" if job.is_terminal else "a worker holds it"
        )
    for reason in explanation.reasons:
        yield clean(_sentence(reason))
        if isinstance(reason, LimitReached):
            yield from (f"  {clean(holder)}" for holder in reason.holder_job_ids)


def _sentence(reason: WaitReason) -> str:
    match reason:
        case NoWorker(job_type=job_type):
            return f"no worker asks for jobs of type {job_type}"
        case TypePaused(job_type=job_type, pause=pause):
            return f"type {job_type} is {paused(pause)}"
        case KeyPaused(concurrency_key=key, pause=pause):
            return f"key {key} is {paused(pause)}"
        case LimitReached():
            return _limit(reason)
        case Scheduled(schedule_time=schedule_time):
            return f"scheduled for {time_text(schedule_time)}"
        case Queued():
            return "; ".join(_turns(reason))
        case WaitsForItsJobs(open=count, sealed=sealed):
            more = "" if sealed else ", and more may be added until it is sealed"
            return f"it is a group, of which {jobs(count)} {_has(count)} not ended{more}"
    return "it waits for a reason that this version of jobledger does not know"


def paused(pause: Pause) -> str:
    """Return since when something is paused, by whom and why."""
    actor = f" by {pause.actor}" if pause.actor else ""
    reason = f": {pause.reason}" if pause.reason else ""
    return f"paused since {clock(pause.pause_time, datetime.now(UTC))}{actor}{reason}"


def _limit(reason: LimitReached) -> str:
    full = f"limit {reason.concurrency_key}: {reason.running} of {reason.max_running} held"
    shown = len(reason.holder_job_ids)
    if not shown:
        return full
    more = reason.running - shown
    return f"{full}, by these jobs" + (f" and {more} more" if more > 0 else "")


def _turns(queued: Queued) -> Iterator[str]:
    if first := queued.higher_priority:
        yield f"{jobs(first)} with a higher priority {_verb(first)} first"
    if ahead := queued.ahead:
        many = "more than " if queued.capped else ""
        yield f"{many}{jobs(ahead)} of its tenant {_verb(ahead)} before it"
    else:
        yield "no job of its tenant goes before it"
    if queued.tenants > 1:
        least = "at least " if queued.tenants >= _MANY else ""
        yield f"{least}{queued.tenants} tenants take turns"


def _has(number: int) -> str:
    return "has" if number == 1 else "have"


def _verb(number: int) -> str:
    return "goes" if number == 1 else "go"
